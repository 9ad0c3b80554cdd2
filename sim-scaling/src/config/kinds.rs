//! What is launched: templates with versions, kinds of instances, mixed instances.
//!
//! A process has no market: prices, depths of pools, processors and memory are data that the caller gives, and the
//! strategies choose by them.

use std::collections::BTreeMap;

/// What a group's capacity is counted in (`DesiredCapacityType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum CapacityUnit {
    /// Instances, or the weights of their overrides.
    #[default]
    Units,
    /// Virtual processors: an instance weighs its kind's `vcpus`.
    Vcpu,
    /// Memory in MiB: an instance weighs its kind's `memory_mib`.
    MemoryMib,
}

/// A launch template: what is launched, in versions that never change.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct LaunchTemplate {
    /// Its name. Default: `"template"`.
    pub name: String,
    /// The versions, by rising numbers; 1 to [`MAX_VERSIONS`](super::MAX_VERSIONS).
    pub versions: Vec<TemplateVersion>,
    /// The version that [`VersionChoice::Default`] stands for. Default: 1.
    pub default_version: u32,
}

impl Default for LaunchTemplate {
    fn default() -> Self {
        Self {
            name: "template".to_owned(),
            versions: vec![TemplateVersion::default()],
            default_version: 1,
        }
    }
}

impl LaunchTemplate {
    /// A template with one version, whose parameters these are.
    #[must_use]
    pub fn new<K: Into<String>, V: Into<String>>(
        name: impl Into<String>,
        parameters: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self {
            name: name.into(),
            versions: vec![TemplateVersion {
                parameters: parameters
                    .into_iter()
                    .map(|(key, value)| (key.into(), value.into()))
                    .collect(),
                ..TemplateVersion::default()
            }],
            default_version: 1,
        }
    }

    /// The version that a choice stands for, or `None` when there is no such version.
    #[must_use]
    pub fn resolve(&self, choice: VersionChoice) -> Option<&TemplateVersion> {
        let number = match choice {
            VersionChoice::Latest => return self.versions.last(),
            VersionChoice::Default => self.default_version,
            VersionChoice::Number(number) => number,
        };
        self.versions
            .binary_search_by_key(&number, |version| version.number)
            .ok()
            .and_then(|at| self.versions.get(at))
    }
}

/// One version of a template.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct TemplateVersion {
    /// Its number, from 1 on.
    pub number: u32,
    /// The kind of instance where the group is not mixed; free text. Default: empty.
    pub kind: String,
    /// What the provisioner makes of it: an image, arguments, sizes. Default: none.
    pub parameters: BTreeMap<String, String>,
    /// Whether it stands for a launch configuration, the older form, which
    /// [`OldestLaunchConfiguration`](super::TerminationPolicy::OldestLaunchConfiguration) ends first. Default: false.
    pub is_launch_configuration: bool,
}

impl Default for TemplateVersion {
    fn default() -> Self {
        Self {
            number: 1,
            kind: String::new(),
            parameters: BTreeMap::new(),
            is_launch_configuration: false,
        }
    }
}

/// Which version of a template is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum VersionChoice {
    /// The newest at the time of the launch (`$Latest`).
    #[cfg_attr(feature = "serde", serde(rename = "$Latest"))]
    Latest,
    /// The template's default at the time of the launch (`$Default`).
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "$Default"))]
    Default,
    /// This one.
    Number(u32),
}

/// A kind of instance, as data.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Kind {
    /// Its name. Default: empty.
    pub name: String,
    /// Virtual processors. Default: 1.
    pub vcpus: u32,
    /// Memory in MiB. Default: 1,024.
    pub memory_mib: u32,
    /// What it costs on demand, in any unit. Default: 1.
    pub on_demand_price: f64,
    /// What it costs on the spot market. Default: 1.
    pub spot_price: f64,
    /// How much of it the spot market has; more is safer. Default: 1.
    pub spot_depth: f64,
}

impl Default for Kind {
    fn default() -> Self {
        Self {
            name: String::new(),
            vcpus: 1,
            memory_mib: 1_024,
            on_demand_price: 1.0,
            spot_price: 1.0,
            spot_depth: 1.0,
        }
    }
}

/// What a kind must have to be chosen (`InstanceRequirements`). Bounds include their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Requirements {
    /// The fewest virtual processors. Default: 0.
    pub min_vcpus: u32,
    /// The most. Default: no limit.
    pub max_vcpus: u32,
    /// The least memory in MiB. Default: 0.
    pub min_memory_mib: u32,
    /// The most. Default: no limit.
    pub max_memory_mib: u32,
}

impl Default for Requirements {
    fn default() -> Self {
        Self {
            min_vcpus: 0,
            max_vcpus: u32::MAX,
            min_memory_mib: 0,
            max_memory_mib: u32::MAX,
        }
    }
}

impl Requirements {
    /// Whether a kind meets them.
    #[must_use]
    pub fn meets(&self, kind: &Kind) -> bool {
        (self.min_vcpus..=self.max_vcpus).contains(&kind.vcpus)
            && (self.min_memory_mib..=self.max_memory_mib).contains(&kind.memory_mib)
    }

    /// The kinds of a catalogue that meet them, each as an override of weight 1, at most
    /// [`MAX_OVERRIDES`](super::MAX_OVERRIDES) of them.
    #[must_use]
    pub fn overrides(&self, catalogue: &[Kind]) -> Vec<Override> {
        catalogue
            .iter()
            .filter(|kind| self.meets(kind))
            .take(super::MAX_OVERRIDES)
            .map(|kind| Override {
                kind: kind.clone(),
                ..Override::default()
            })
            .collect()
    }
}

/// How much an instance of an override weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Weighing {
    /// As the group's [`CapacityUnit`] has it: 1, its processors, or its memory.
    ByUnit,
    /// This many units (`WeightedCapacity`, 1 to 999 there).
    Units(u32),
}

/// One kind that a mixed group launches.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct Override {
    /// The kind.
    pub kind: Kind,
    /// What it weighs. Default: [`Weighing::ByUnit`].
    pub weight: Weighing,
}

impl Default for Override {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            weight: Weighing::ByUnit,
        }
    }
}

impl Override {
    /// How many units of capacity one instance is.
    #[must_use]
    pub fn units(&self, unit: CapacityUnit) -> u32 {
        match (self.weight, unit) {
            (Weighing::Units(weight), _) => weight,
            (Weighing::ByUnit, CapacityUnit::Units) => 1,
            (Weighing::ByUnit, CapacityUnit::Vcpu) => self.kind.vcpus,
            (Weighing::ByUnit, CapacityUnit::MemoryMib) => self.kind.memory_mib,
        }
    }
}

/// Several kinds of instances in one group (`MixedInstancesPolicy`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct MixedInstances {
    /// The kinds, in order of priority; 1 to [`MAX_OVERRIDES`](super::MAX_OVERRIDES).
    pub overrides: Vec<Override>,
    /// How many units are on demand before any spot. Default: 0.
    pub on_demand_base: u32,
    /// How many percent of the units above the base are on demand; 0 to 100. Default: 100.
    pub on_demand_percentage: u32,
    /// Which kind is taken on demand. Default: [`OnDemandStrategy::Prioritized`].
    pub on_demand_strategy: OnDemandStrategy,
    /// Which kind is taken on the spot market. Default: [`SpotStrategy::LowestPrice`] of two pools.
    pub spot_strategy: SpotStrategy,
    /// The most that is paid on the spot market. Default: `None`, any price.
    pub spot_max_price: Option<f64>,
}

impl Default for MixedInstances {
    fn default() -> Self {
        Self {
            overrides: vec![Override::default()],
            on_demand_base: 0,
            on_demand_percentage: 100,
            on_demand_strategy: OnDemandStrategy::Prioritized,
            spot_strategy: SpotStrategy::LowestPrice { pools: 2 },
            spot_max_price: None,
        }
    }
}

/// Which kind is taken on demand (`OnDemandAllocationStrategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum OnDemandStrategy {
    /// The first that can be had, in the order of the overrides.
    Prioritized,
    /// The cheapest that can be had.
    LowestPrice,
}

/// Which kind is taken on the spot market (`SpotAllocationStrategy`), by the prices and depths given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum SpotStrategy {
    /// Evenly over the cheapest `pools` kinds (`SpotInstancePools`, 1 to 20 there).
    LowestPrice {
        /// How many kinds.
        pools: u32,
    },
    /// The deepest.
    CapacityOptimized,
    /// The first in the order of the overrides whose depth is at least half of the deepest's.
    CapacityOptimizedPrioritized,
    /// The cheapest whose depth is at least half of the deepest's.
    PriceCapacityOptimized,
}
