//! Names of targets and zones, and the small numbers that stand for them.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

use sim_core::id::Id;
use sim_core::sync::Arc;

/// Makes a cheap-to-clone name. (The `Arc` of loom's models holds nothing unsized and compares
/// nothing, hence the box and the impls.)
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Arc<Box<str>>);

        impl $name {
            /// Makes it from a text; what is too long or empty is refused where it is used.
            #[must_use]
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::new(Box::from(text.as_ref())))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.as_str().cmp(other.as_str())
            }
        }

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }
    };
}

name! {
    /// The name of a target within its balancer: an instance id, an address with a port, whatever its owner calls it.
    ///
    /// Cloning it copies a pointer.
    TargetId
}

name! {
    /// The name of a zone, as in `"eu-central-1a"`: what fails together.
    ///
    /// Cloning it copies a pointer.
    Zone
}

impl From<Id> for TargetId {
    fn from(id: Id) -> Self {
        Self::new(id.to_string())
    }
}

/// The number of a zone within its balancer, from zero in the order in which zones were first named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(pub(crate) u16);

impl ZoneId {
    /// The place of the zone in a table of all zones.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The place of a target in a balancer's table.
///
/// Places are used again, each time with a new birth number: a slot kept for too long names nobody, and never its
/// successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    pub(crate) index: u32,
    pub(crate) birth: u32,
}

impl Slot {
    /// The place in the table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// How many targets had the place before.
    #[must_use]
    pub const fn birth(self) -> u32 {
        self.birth
    }
}
