//! An object of the store is lost, or has another content: bit rot, somebody's hand, a lifecycle rule. One bad object is one
//! bad object: everything else comes back, and of it an older version, or nothing once that was accepted.

use super::carried::{Besides, deviations};
use super::life::{Life, Verdict, fault, list, tail};
use super::pod::destination;
use super::tree::Tree;
use vixens_backup::contract::question::Question;

impl Life {
    /// A pod is stopped, one object of the mirror is damaged, and the next pod starts without the volume. With it nobody would
    /// see that before the place is next compared with its index, within a day: no life is as long.
    pub fn damage(&mut self) -> Verdict {
        self.stop(2)?;
        let state = self.app.look();
        self.app.close();
        self.next_pod();
        let listed = self.listed()?;
        self.damage_one();
        self.workload.lose_volume();
        self.init_and_accept()?;
        let found = self.app.look();
        self.judge_damaged(&self.visible(state), &found)?;
        self.app.remember_all();
        // Whatever else had that object may have lost it.
        self.damaged = listed.last().cloned();
        self.model.clear();
        self.workload.start(&mut self.pod);
        self.acknowledge()?;
        // Who has the data has made good what the store lacked.
        self.check(1)
    }

    fn damage_one(&mut self) {
        let mirror = format!("{}/config", destination());
        let server = &self.workload.store.server;
        let objects = server.rclone(&["lsf", "--recursive", "--files-only", &mirror]);
        let mut objects: Vec<&str> = objects.lines().collect();
        objects.sort_unstable();
        let Some(name) = self.dice.pick(&objects) else { return };
        let object = format!("{mirror}/{name}");
        if self.dice.in_hundred(50) {
            server.rclone(&["deletefile", &object]);
            self.note(format!("  {name:?} is lost"));
        } else {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), self.dice.bytes(1234)).unwrap();
            server.rclone(&["copyto", "--ignore-times", file.path().to_str().unwrap(), &object]);
            self.note(format!("  {name:?} has another content"));
        }
    }

    /// `init`, and again with what it asks accepted.
    fn init_and_accept(&mut self) -> Verdict {
        let mut flags = self.flags.clone();
        for _ in 0..3 {
            let said = self.workload.init(&self.pod, &flags);
            match (said.code, Question::find(&said.text)) {
                (Some(0), _) => return Ok(()),
                (_, Some(question)) => {
                    self.note(format!("  accepted: {}: {}", question.id, question.text));
                    flags.push(format!("--accept={}", question.id));
                }
                (code, None) => {
                    return Err(fault(
                        1,
                        format!("init ended with {code:?}: {}", tail(&said.text, 1500)),
                    ));
                }
            }
        }
        Err(fault(1, "init asks again and again"))
    }

    fn judge_damaged(&mut self, expected: &Tree, found: &Tree) -> Verdict {
        self.checked += 1;
        let mut wrong = deviations(expected, found, Besides::Any, &self.app);
        let paths = expected.iter().filter(|(path, seen)| found.get(*path) != Some(seen));
        let differing: Vec<_> = paths.map(|(path, _)| path).collect();
        let is_older = |path: &&Vec<u8>| found.get(*path).is_none_or(|seen| self.app.ever_was(path, &seen.what));
        if differing.len() <= 1 && wrong.len() <= 1 && differing.iter().all(&is_older) {
            wrong.clear();
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(fault(
            1,
            format!("more than the damaged object is lost: {}", list(&wrong)),
        ))
    }
}
