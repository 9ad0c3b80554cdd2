//! Lifecycle hooks: who is asked, what waits for the answers.

use sim_core::sync::Arc;
use sim_core::time::Instant;

use super::Machine;
use super::instance::{HookWait, Wait};
use crate::config::{HookResult, HookTransition, LifecycleHook, MAX_HOOKS};
use crate::error::{ConfigError, HookError, UnknownName};
use crate::message::{ActivityStatus, HookNotice, InstanceId, Notification};

impl Machine {
    pub(super) fn has_hooks(&self, transition: HookTransition) -> bool {
        self.config
            .hooks
            .iter()
            .any(|hook| hook.transition == transition)
    }

    /// Asks all hooks of a transition; the instance waits for them.
    pub(super) fn ask_hooks(&mut self, id: InstanceId, transition: HookTransition, now: Instant) {
        let Some(instance) = self.instances.get(&id) else {
            return;
        };
        let is_warm = instance.state.is_warm();
        let asked: Vec<LifecycleHook> = self
            .config
            .hooks
            .iter()
            .filter(|hook| hook.transition == transition)
            .cloned()
            .collect();
        let mut waiting = Vec::with_capacity(asked.len());
        for hook in asked {
            let last = now + hook.longest.min(hook.heartbeat.saturating_mul(100));
            let due = (now + hook.heartbeat).min(last);
            let name: Arc<str> = Arc::from(hook.name.as_str());
            waiting.push(HookWait {
                name: name.clone(),
                due,
                last,
                heartbeat: hook.heartbeat,
                default_result: hook.default_result,
            });
            self.notify(Notification::Hook(HookNotice {
                group: self.name.clone(),
                hook: name,
                instance: id,
                transition,
                is_warm,
                due,
                default_result: hook.default_result,
                metadata: Arc::from(hook.metadata.as_str()),
            }));
        }
        self.wait(id, Wait::Hooks(waiting));
        self.progress(id, ActivityStatus::MidLifecycleAction, None, now);
    }

    /// Answers a hook (`CompleteLifecycleAction`).
    ///
    /// # Errors
    /// [`HookError`] when the instance does not wait for that hook.
    pub fn complete_hook(
        &mut self,
        id: InstanceId,
        hook: &str,
        result: HookResult,
        now: Instant,
    ) -> Result<(), HookError> {
        self.waiting(id, hook)?;
        self.resolve_hook(id, hook, result, now);
        self.settle(now);
        Ok(())
    }

    /// Begins a hook's time anew (`RecordLifecycleActionHeartbeat`), up to its longest; tells when it is due then.
    ///
    /// # Errors
    /// [`HookError`] when the instance does not wait for that hook.
    pub fn heartbeat(
        &mut self,
        id: InstanceId,
        hook: &str,
        now: Instant,
    ) -> Result<Instant, HookError> {
        let wait = self.waiting(id, hook)?;
        wait.due = (now + wait.heartbeat).min(wait.last);
        let due = wait.due;
        self.summary = None;
        Ok(due)
    }

    fn waiting(&mut self, id: InstanceId, hook: &str) -> Result<&mut HookWait, HookError> {
        let instance = self
            .instances
            .get_mut(&id)
            .ok_or(HookError::Unknown { id })?;
        let found = match &mut instance.wait {
            Wait::Hooks(waiting) => waiting.iter_mut().find(|wait| &*wait.name == hook),
            _ => None,
        };
        found.ok_or_else(|| HookError::NotWaiting {
            id,
            hook: hook.to_owned(),
        })
    }

    /// Adds a hook, or replaces the one of that name; who waits already waits as before.
    ///
    /// # Errors
    /// [`ConfigError`] for a hook that is not valid, or one too many.
    pub fn put_hook(&mut self, hook: LifecycleHook) -> Result<(), ConfigError> {
        crate::config::check_hook(&hook)?;
        let found = self.config.hooks.iter_mut().find(|h| h.name == hook.name);
        if let Some(found) = found {
            *found = hook;
            return Ok(());
        }
        if self.config.hooks.len() >= MAX_HOOKS {
            return Err(ConfigError::OutOfRange {
                field: "hooks",
                value: MAX_HOOKS as u64 + 1,
                least: 0,
                most: MAX_HOOKS as u64,
            });
        }
        self.config.hooks.push(hook);
        Ok(())
    }

    /// Removes a hook. Instances that wait for it go on, as if it had answered [`HookResult::Continue`].
    ///
    /// # Errors
    /// [`UnknownName`] when there is none of that name.
    pub fn delete_hook(&mut self, name: &str, now: Instant) -> Result<(), UnknownName> {
        let at = self
            .config
            .hooks
            .iter()
            .position(|hook| hook.name == name)
            .ok_or_else(|| UnknownName {
                what: "hook",
                name: name.to_owned(),
            })?;
        self.config.hooks.remove(at);
        let ids: Vec<_> = self.instances.keys().copied().collect();
        for id in ids {
            self.resolve_hook(id, name, HookResult::Continue, now);
        }
        self.settle(now);
        Ok(())
    }
}
