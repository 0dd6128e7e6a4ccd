//! What happens to whole hosts: pauses, computing, crashes, restarts.

use crate::{
    events::Event,
    fault::Fault,
    state::{Ended, State},
    tasks::Task,
    trace::What,
};

impl State {
    /// No task of it runs. Its kernel goes on, and so does the time.
    pub(crate) fn pause(&mut self, host: usize) {
        let Some(paused) = self.hosts.get_mut(host) else { return };
        if !paused.paused {
            paused.paused = true;
            self.log.fault(self.now, host, Fault::Pause, 0, 0);
        }
    }

    pub(crate) fn resume(&mut self, host: usize) {
        let Some(paused) = self.hosts.get_mut(host) else { return };
        if paused.paused {
            paused.paused = false;
            self.log.say(self.now, host, What::Resumed, 0, 0);
            self.rouse(host);
        }
    }

    /// It computes for so long, behind what it computes already.
    pub(crate) fn compute(&mut self, host: usize, nanos: u64) {
        let now = self.now;
        let Some(busy) = self.hosts.get_mut(host) else { return };
        busy.busy_until = busy.busy_until.max(now).saturating_add(nanos);
        let (until, incarnation) = (busy.busy_until, busy.incarnation);
        self.log.fault(now, host, Fault::Busy, 0, 0);
        self.events.arrange(until, Event::Rest { host, incarnation });
    }

    pub(crate) fn rested(&mut self, host: usize, incarnation: u64) {
        if self.hosts.get(host).is_some_and(|host| host.incarnation == incarnation) {
            self.rouse(host);
        }
    }

    /// Those who were woken meanwhile have their turn, if it runs.
    fn rouse(&mut self, host: usize) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(host).filter(|host| host.runs(now)) else { return };
        for task in host.waiting.drain(..) {
            self.ready.push(task);
        }
    }

    /// Its process ends, or its machine is off. What has to be dropped outside the lock.
    #[must_use]
    pub(crate) fn stop(&mut self, host: usize, off: bool) -> Vec<Task> {
        let now = self.now;
        let Some(stopped) = self.hosts.get_mut(host).filter(|host| host.running) else { return Vec::new() };
        stopped.running = false;
        stopped.powered = !off;
        stopped.paused = false;
        stopped.busy_until = 0;
        stopped.incarnation += 1;
        stopped.waiting.clear();
        let listening = std::mem::take(&mut stopped.listening);
        self.dropped.extend(listening.into_values().filter_map(|port| port.acceptor));
        self.log.fault(now, host, if off { Fault::PowerOff } else { Fault::Crash }, 0, 0);
        self.close_all(host, !off);
        self.tasks.of(host)
    }

    /// It is there again; whether it was not.
    pub(crate) fn restart(&mut self, host: usize) -> bool {
        let now = self.now;
        let Some(started) = self.hosts.get_mut(host).filter(|host| !host.running) else { return false };
        started.running = true;
        started.powered = true;
        started.ended = false;
        self.log.fault(now, host, Fault::Restart, 0, 0);
        // What others have sent meanwhile, their kernels send again.
        for from in 0..self.hosts.len() {
            self.release(from, host);
            self.release(host, from);
        }
        true
    }

    /// The first future of a host has ended.
    pub(crate) fn ended(&mut self, host: usize, incarnation: u64, how: Ended) {
        let Some(ended) = self.hosts.get_mut(host).filter(|host| host.incarnation == incarnation) else {
            return;
        };
        ended.ended = true;
        let name = ended.name.clone();
        self.log.say(self.now, host, What::Ended, 0, 0);
        if let Err(error) = how {
            self.mistake(format!("host {name} ended with an error: {error}"));
        }
    }

    /// Every host that runs has done what it was started for.
    pub(crate) fn all_ended(&self) -> bool {
        self.hosts.iter().all(|host| host.start.is_none() || host.ended || !host.running)
    }
}
