//! What happens in the life of a workload's files, step by step.

use super::life::{Fault, Life, Verdict, fault, tail};
use super::pod::finished;
use super::tree::{Seen, Tree, What};
use std::time::Duration;

/// A step.
#[derive(Clone, Copy, Debug)]
enum Step {
    Work,
    Acknowledge,
    KillSidecar,
    KillSidecarAndStart,
    KillChild,
    KillStore,
    FreezeStore,
    EmptyStore,
    StopAndLose,
    KillAndLose,
    Check,
    RestoreAt,
    Wait,
    StopAndStart,
    KillInit,
    Overlap,
    RemoveMost,
    Policy,
    EmptyStart,
    Damage,
}

/// Each, and how often.
const STEPS: [(Step, u64); 20] = [
    (Step::Work, 8),
    (Step::Acknowledge, 12),
    (Step::KillSidecar, 5),
    (Step::KillSidecarAndStart, 5),
    (Step::KillChild, 6),
    (Step::KillStore, 4),
    (Step::FreezeStore, 3),
    (Step::EmptyStore, 4),
    (Step::StopAndLose, 4),
    (Step::KillAndLose, 4),
    (Step::Check, 6),
    (Step::RestoreAt, 3),
    (Step::Wait, 3),
    (Step::StopAndStart, 5),
    (Step::KillInit, 3),
    (Step::Overlap, 4),
    (Step::RemoveMost, 3),
    (Step::Policy, 3),
    (Step::EmptyStart, 2),
    (Step::Damage, 2),
];

impl Life {
    /// The first pod of a workload.
    pub fn begin(&mut self) -> Verdict {
        self.app.burst(&mut self.dice, 20, 30);
        self.start()?;
        self.acknowledge()
    }

    /// One more step.
    pub fn step(&mut self) -> Verdict {
        let mut step = self.dice.weighted(&STEPS);
        if self.without.contains(&format!("{step:?}")) {
            step = Step::Work;
        }
        self.note(format!("{step:?}"));
        match step {
            Step::Work => self.work(1, 25),
            Step::Acknowledge => {
                self.work(1, 25);
                self.acknowledge()?;
            }
            Step::KillSidecar => {
                self.work(1, 8);
                self.dice.wait(0, 3000);
                self.pod.kill();
                self.work(0, 4);
                self.workload.start(&mut self.pod);
            }
            Step::KillSidecarAndStart => {
                self.work(1, 10);
                self.dice.wait(0, 3000);
                self.pod.kill();
                self.work(0, 4);
                self.start()?;
            }
            Step::KillChild => {
                self.work(1, 10);
                for _ in 0..self.dice.range(1, 4) {
                    self.dice.wait(0, 1000);
                    self.pod.kill_child(self.dice.next());
                }
            }
            Step::Wait => self.dice.wait(0, 12_000),
            Step::KillStore | Step::FreezeStore if self.workload.store.is_served() => self.store_away(step),
            Step::KillStore | Step::FreezeStore | Step::EmptyStore => self.store_empty()?,
            Step::StopAndStart => {
                self.stop(2)?;
                self.work(0, 4);
                self.next_pod();
                self.start()?;
            }
            Step::StopAndLose => {
                self.work(1, 10);
                let state = self.stopped()?;
                self.start_on_nothing(&state, "after a graceful stop and a lost volume")?;
            }
            Step::KillInit => {
                let state = self.stopped()?;
                for _ in 0..self.dice.range(1, 4) {
                    self.kill_init();
                }
                self.start_on_nothing(
                    &state,
                    "after a graceful stop, a lost volume and starts that were killed",
                )?;
            }
            Step::KillAndLose => self.kill_and_lose()?,
            Step::Check => self.check(3)?,
            Step::RestoreAt => self.restore_at()?,
            Step::Overlap => self.overlap()?,
            Step::RemoveMost => self.remove_most()?,
            Step::Policy => {
                self.stop(2)?;
                self.next_pod();
                self.change_policy();
                self.start()?;
            }
            Step::EmptyStart => self.empty_start()?,
            Step::Damage => self.damage()?,
        }
        Ok(())
    }

    fn work(&mut self, from: usize, to: usize) {
        self.app.burst(&mut self.dice, from, to);
    }

    fn store_away(&mut self, step: Step) {
        self.work(1, 10);
        self.dice.wait(0, 3000);
        if matches!(step, Step::KillStore) {
            self.workload.store.kill();
            self.dice.wait(0, 4000);
            self.work(0, 4);
            self.workload.store.resume();
        } else {
            self.workload.store.freeze(true);
            self.dice.wait(0, 8000);
            self.workload.store.freeze(false);
        }
    }

    /// The store's disk is not mounted for a while: it answers that there is nothing.
    fn store_empty(&mut self) -> Verdict {
        self.work(1, 10);
        self.dice.wait(0, 2000);
        let with_bucket = self.dice.in_hundred(50);
        self.note(format!(
            "  the store is empty{}",
            if with_bucket { "" } else { ", and has no bucket" }
        ));
        self.workload.store.unmount(with_bucket);
        self.dice.wait(0, 4000);
        self.work(1, 6);
        if self.dice.in_hundred(30) {
            self.note("  and the sidecar is killed");
            self.pod.kill();
            self.workload.start(&mut self.pod);
        }
        self.dice.wait(0, 6000);
        self.workload.store.mount();
        self.acknowledge()
    }

    /// The pod is stopped gracefully; what the volume was then.
    fn stopped(&mut self) -> Result<Tree, Fault> {
        self.stop(2)?;
        let state = self.app.look();
        self.app.close();
        self.next_pod();
        self.workload.lose_volume();
        Ok(state)
    }

    fn start_on_nothing(&mut self, state: &Tree, what: &str) -> Verdict {
        self.init()?;
        let found = self.app.look();
        let expected = self.visible(state.clone());
        self.expect(2, &expected, &found, self.any_besides(), what)?;
        self.app.remember_all();
        self.workload.start(&mut self.pod);
        self.acknowledged = Some(self.visible(found));
        self.app.touched.clear();
        Ok(())
    }

    fn kill_init(&mut self) {
        let length = Duration::from_millis(self.dice.range(0, 1500));
        let mut command = self.workload.init_command(&self.pod, &self.flags);
        let said = finished(&mut command, length);
        let end = said
            .code
            .map_or_else(|| "killed".to_owned(), |code| format!("ended with {code}"));
        self.note(format!("  an init of {length:?} is {end}"));
    }

    fn kill_and_lose(&mut self) -> Verdict {
        self.work(1, 10);
        self.dice.wait(0, 6000);
        self.pod.kill();
        self.app.close();
        self.next_pod();
        self.workload.lose_volume();
        self.init()?;
        let found = self.app.look();
        self.judge_killed(&found)?;
        self.app.remember_all();
        self.workload.start(&mut self.pod);
        // As far as the next comparisons go, this is what was acknowledged.
        self.acknowledged = Some(self.visible(found));
        self.app.touched.clear();
        Ok(())
    }

    /// Law 4. The annotation often stays when the next pods start: it is served once.
    fn restore_at(&mut self) -> Verdict {
        self.stop(2)?;
        self.app.close();
        let listed = self.listed()?;
        let known: Vec<&String> = listed.iter().filter(|id| self.model.contains_key(*id)).collect();
        self.next_pod();
        let Some(id) = self.dice.pick(&known).map(|id| (*id).clone()) else {
            return self.start();
        };
        let flag = format!("--restore-at={id}");
        self.note(format!("  {flag}"));
        let is_new = self.served.insert(id.clone());
        self.flags = vec![flag];
        let before = self.app.look();
        self.init()?;
        let found = self.app.look();
        // A value that was served is ignored ever after.
        let expected = if is_new { self.model[&id].tree.clone() } else { before };
        self.expect(4, &expected, &found, self.any_besides(), &format!("restore-at {id}"))?;
        self.workload.start(&mut self.pod);
        self.app.remember_all();
        self.acknowledged = None;
        // The former release records a value with its own backup alone, and not where another came first: nobody can know then
        // that it was served.
        if self.dice.in_hundred(50) || !self.pod.knows_records {
            self.flags.clear();
        }
        // Served it is once a snapshot has the result.
        self.acknowledge()
    }

    /// Two pods at once, as in a rolling update: the new one takes over on the same volume while the old one runs.
    fn overlap(&mut self) -> Verdict {
        self.work(1, 8);
        let next = self.another_pod();
        let mut old = std::mem::replace(&mut self.pod, next);
        self.note(format!("  {} beside {}", self.pod.name(), old.name()));
        self.start()?;
        self.work(1, 8);
        self.dice.wait(0, 5000);
        if self.dice.in_hundred(50) {
            self.note("  the old one is killed");
            old.kill();
        } else {
            match old.stop() {
                Some(status) if status.success() => {}
                status => return Err(fault(0, format!("the old pod's stop ended with {status:?}"))),
            }
        }
        self.work(1, 4);
        self.acknowledge()
    }

    /// A slip: most of the files go. Without a guard in the way they go; with one they are held, and every snapshot has them
    /// until somebody has accepted that, or they are back.
    fn remove_most(&mut self) -> Verdict {
        if !self.holds {
            self.app.remove_most(&mut self.dice);
            return Ok(());
        }
        self.acknowledge()?;
        let before = self.app.look();
        self.app.remove_most(&mut self.dice);
        let after = self.app.look();
        self.acknowledge()?;
        let is_file = |seen: &&Seen| matches!(seen.what, What::File(..) | What::Database(_));
        let files = |tree: &Tree| tree.values().filter(is_file).count();
        let (before, after) = (files(&self.visible(before)), files(&self.visible(after)));
        self.note(format!("  {after} of {before} files are left"));
        // By files it is plain; by bytes, and of what lies elsewhere too, the guard knows more than we do.
        let questions = self.said()["questions"].as_array().cloned().unwrap_or_default();
        if before > 4 && after * 4 < before && questions.is_empty() {
            return Err(fault(8, "most of the files went, and nothing is asked"));
        }
        if self.dice.in_hundred(60) {
            return Ok(());
        }
        let ids: Vec<String> = questions
            .iter()
            .filter_map(|question| question["id"].as_str())
            .map(str::to_owned)
            .collect();
        self.note(format!("  accepted: {ids:?}"));
        let ids: Vec<String> = ids.into_iter().filter(|id| id.starts_with("hold-")).collect();
        let said = self.workload.backup(&self.pod, &ids, Duration::from_secs(120));
        if said.code != Some(0) {
            return Err(fault(8, format!("what was accepted is refused: {}", said.text)));
        }
        self.acknowledge()?;
        if let Some(held) = self.said()["held"]["files"].as_u64() {
            return Err(fault(8, format!("{held} files are still held after that was accepted")));
        }
        Ok(())
    }

    /// A pod without a volume starts while the store's disk is not mounted: it knows that there was a backup, and waits.
    fn empty_start(&mut self) -> Verdict {
        let state = self.stopped()?;
        let with_bucket = self.dice.in_hundred(50);
        self.workload.store.unmount(with_bucket);
        let mut command = self.workload.init_command(&self.pod, &self.flags);
        let length = Duration::from_millis(self.dice.range(500, 6000));
        let said = finished(&mut command, length);
        self.workload.store.mount();
        if said.code == Some(0) {
            return Err(fault(
                5,
                format!("init has begun anew beside a backup: {}", tail(&said.text, 1500)),
            ));
        }
        self.start_on_nothing(&state, "after a start that found the store empty")
    }
}
