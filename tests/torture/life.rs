//! The life of a workload's files: an app, pods, a store, and a model that knows what each acknowledged snapshot has to be.
//! The steps are in `steps`; here are the laws.

use super::app::App;
use super::carried::{Besides, EXCLUDED, deviations, is_excluded};
use super::dice::Dice;
use super::pod::{Pod, Said, Workload};
use super::settings::Settings;
use super::store::Store;
use super::tree::{self, Connections, Seen, Tree, What};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vixens_backup::contract::record::{RECORD_FILE, Record, RecordedPlace};

/// A law that was broken. Law 0 is that of every program: it does not hang, and does not fail where nothing is wrong.
#[derive(Debug)]
pub struct Fault {
    /// Which.
    pub law: u8,
    /// How.
    pub what: String,
}

/// A fault against a law.
pub fn fault(law: u8, what: impl Into<String>) -> Fault {
    Fault { law, what: what.into() }
}

/// Nothing, or the law that was broken.
pub type Verdict = Result<(), Fault>;

/// How long an acknowledgement may take once nothing is in the way.
const PATIENCE: Duration = Duration::from_secs(240);

/// A snapshot that was acknowledged.
pub struct Acknowledged {
    /// What the volume was then.
    pub tree: Tree,
    /// What was said to be kept besides.
    pub besides: Besides,
}

/// The life of one seed.
pub struct Life {
    /// Decides.
    pub dice: Dice,
    /// Whose life it is.
    pub workload: Workload,
    /// The app.
    pub app: App,
    /// The pod of the moment.
    pub pod: Pod,
    /// Flags of the next `init`.
    pub flags: Vec<String>,
    /// The `restore-at` values that were served.
    pub served: BTreeSet<String>,
    /// What was acknowledged last, where nothing has made that uncertain.
    pub acknowledged: Option<Tree>,
    /// Each acknowledged snapshot, by its id.
    pub model: BTreeMap<String, Acknowledged>,
    /// Whether a guard may hold deletions. Else as much may vanish as there is.
    pub holds: bool,
    /// Whether the pods of the moment exclude [`EXCLUDED`], and whether any ever did.
    pub excludes: bool,
    has_excluded: bool,
    /// Whether every acknowledged snapshot has to be listed for ever: that is how long it will last.
    keeps_all: bool,
    /// The programs of its pods, by turns.
    pub programs: Vec<PathBuf>,
    /// Steps that are not taken: see `Settings::without`.
    pub without: Vec<String>,
    /// The newest snapshot of the time before an object was damaged: what is not newer may have lost something.
    pub damaged: Option<String>,
    /// What was done.
    pub steps: Vec<String>,
    /// How often the product was compared with the model.
    pub checked: u64,
}

impl Life {
    /// A life that begins.
    pub fn new(seed: u64, settings: &Settings) -> Self {
        let (kind, program) = (settings.store.as_str(), settings.program.as_path());
        let mut dice = Dice::new(seed, "files");
        let mut workload = Workload::new(Store::of(kind), program, "tier2");
        let retentions = [None, None, Some("last=4"), Some("last=6,history=4Mi"), Some("1h")];
        let retention = *dice.pick(&retentions).unwrap();
        let flags = &mut workload.sidecar_flags;
        flags.extend(retention.map(|retention| format!("--retention={retention}")));
        let holds = dice.in_hundred(50) && !settings.is_without("Holds");
        if !holds {
            flags.push("--max-shrink=100%".to_owned());
        }
        if dice.in_hundred(30) {
            "--settle=2s".clone_into(&mut flags[0]);
        }
        let (app, pod) = (App::on(workload.volume()), workload.pod());
        let begun = format!("{kind}, sidecar {:?}", workload.sidecar_flags);
        Self {
            dice,
            app,
            pod,
            workload,
            flags: Vec::new(),
            served: BTreeSet::new(),
            acknowledged: None,
            model: BTreeMap::new(),
            holds,
            excludes: false,
            has_excluded: false,
            keeps_all: matches!(retention, None | Some("1h")),
            programs: vec![program.to_owned()],
            without: settings.without.clone(),
            damaged: None,
            steps: vec![begun],
            checked: 0,
        }
    }

    /// Notes what is done.
    pub fn note(&mut self, what: impl Into<String>) {
        self.steps.push(what.into());
    }

    /// Waits until the sidecar answers.
    pub fn ready(&mut self) -> Verdict {
        let deadline = Instant::now() + PATIENCE;
        while self.pod.status().is_none() {
            if !self.pod.is_alive() {
                return Err(fault(0, "the sidecar has ended by itself"));
            }
            if Instant::now() > deadline {
                return Err(fault(0, "the sidecar does not answer"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Has a backup made, as often as it takes while nothing is in its way: law 7.
    pub fn acknowledge(&mut self) -> Verdict {
        self.ready()?;
        let state = self.app.look();
        let deadline = Instant::now() + PATIENCE;
        let id = loop {
            let said = self.workload.backup(&self.pod, &[], Duration::from_secs(120));
            let id = said.out.lines().last().unwrap_or_default().to_owned();
            match said.code {
                Some(0) if !id.is_empty() => break id,
                _ if Instant::now() > deadline => {
                    return Err(fault(7, format!("no backup is made any more: {}", said.text.trim())));
                }
                code => {
                    let why = format!("  not acknowledged ({code:?}): {}", tail(&said.text, 300));
                    if self.steps.last() != Some(&why) {
                        self.note(why);
                    }
                }
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        let state = self.visible(state);
        let besides = self.besides();
        self.note(format!("  acknowledged as {id}, {besides:?} besides"));
        let tree = state.clone();
        self.model.insert(id, Acknowledged { tree, besides });
        self.acknowledged = Some(state);
        self.app.touched.clear();
        self.record();
        Ok(())
    }

    /// What of a tree the policy of the moment takes.
    pub fn visible(&self, mut tree: Tree) -> Tree {
        if self.excludes {
            tree.retain(|path, seen| !is_excluded(path, &seen.what));
        }
        tree
    }

    /// What `/status` says of the destination.
    pub fn said(&self) -> serde_json::Value {
        let status = self.pod.status().unwrap_or_default();
        status["destinations"][super::pod::destination()].clone()
    }

    /// What is said to be kept beside what the volume is.
    pub fn besides(&self) -> Besides {
        let said = self.said();
        let count = |value: &serde_json::Value| value.as_u64().unwrap_or(0);
        match count(&said["held"]["files"]) + count(&said["excluded"]) {
            // Links and folders are not counted.
            0 if self.any_besides() == Besides::Nothing => Besides::Nothing,
            files => Besides::Files(files),
        }
    }

    /// What may be kept besides where nobody has said how much.
    pub fn any_besides(&self) -> Besides {
        if self.holds || self.has_excluded {
            Besides::Any
        } else {
            Besides::Nothing
        }
    }

    /// The next pods have another policy.
    pub fn change_policy(&mut self) {
        self.excludes = !self.excludes;
        self.has_excluded = true;
        self.workload.flags.clear();
        if self.excludes {
            self.workload.flags.push(format!("--exclude={EXCLUDED}"));
        }
        self.note(format!("  {:?}", self.workload.flags));
    }

    /// The record of the place that is kept outside of it, as the controller writes it.
    fn record(&self) {
        let said = self.said();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let place = RecordedPlace {
            store_id: text(&said["store_id"]),
            snapshot: text(&said["snapshot"]),
            time: jiff::Timestamp::now(),
        };
        let mut record = Record::default();
        record.places.insert(super::pod::destination(), place);
        std::fs::write(self.workload.record().join(RECORD_FILE), record.to_json()).unwrap();
    }

    /// `init` of the pod of the moment, which has to succeed; then law 5 is looked at.
    pub fn init(&mut self) -> Verdict {
        let said = self.workload.init(&self.pod, &self.flags);
        self.judge_init(&said)
    }

    fn judge_init(&mut self, said: &Said) -> Verdict {
        match said.code {
            Some(0) => {}
            Some(code) => return Err(fault(0, format!("init ended with {code}: {}", tail(&said.text, 1500)))),
            None => return Err(fault(0, format!("init hangs: {}", tail(&said.text, 1500)))),
        }
        if !self.model.is_empty() && self.pod.file(".no-backup").exists() {
            return Err(fault(5, format!("init found no backup: {}", tail(&said.text, 1500))));
        }
        Ok(())
    }

    /// The next pod: `init`, then the sidecar.
    pub fn start(&mut self) -> Verdict {
        self.init()?;
        self.workload.start(&mut self.pod);
        Ok(())
    }

    /// Another pod takes the place of one that has ended.
    pub fn next_pod(&mut self) {
        self.pod = self.another_pod();
        self.note(format!("  {}", self.pod.name()));
    }

    /// Another pod; of which release, the dice say.
    pub fn another_pod(&mut self) -> Pod {
        let program = self.dice.pick(&self.programs).unwrap().clone();
        self.workload.pod_of(program)
    }

    /// The pod is stopped, and has saved all that there is.
    pub fn stop(&mut self, law: u8) -> Verdict {
        self.ready()?;
        match self.pod.stop() {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(fault(law, format!("the sidecar's stop ended with {status}"))),
            None => Err(fault(law, "the sidecar did not stop")),
        }
    }

    /// A tree has to be as it is known.
    pub fn expect(&mut self, law: u8, expected: &Tree, found: &Tree, besides: Besides, what: &str) -> Verdict {
        self.checked += 1;
        let differences = deviations(expected, found, besides, &self.app);
        if differences.is_empty() {
            return Ok(());
        }
        Err(fault(law, format!("{what}: {}", list(&differences))))
    }

    /// Law 3, of a volume that a restore has filled after a kill.
    pub fn judge_killed(&mut self, found: &Tree) -> Verdict {
        self.checked += 1;
        let mut wrong = Vec::new();
        for (path, seen) in self.acknowledged.iter().flatten() {
            if !self.app.has_touched(path) && found.get(path) != Some(seen) {
                wrong.push(format!(
                    "{} was acknowledged as {}, came back as {}",
                    path.escape_ascii(),
                    tree::told(Some(seen)),
                    tree::told(found.get(path))
                ));
            }
        }
        for path in found.keys() {
            let is_acknowledged = self.acknowledged.as_ref().is_none_or(|all| all.contains_key(path));
            if !self.app.has_touched(path) && !is_acknowledged && self.any_besides() == Besides::Nothing {
                wrong.push(format!(
                    "{} was gone when it was acknowledged, and came back",
                    path.escape_ascii()
                ));
            }
        }
        wrong.extend(self.never_were(found));
        if wrong.is_empty() {
            return Ok(());
        }
        Err(fault(3, list(&wrong)))
    }

    /// What a tree has that its path never was.
    fn never_were(&self, found: &Tree) -> Vec<String> {
        let never = |(path, seen): &(&Vec<u8>, &Seen)| match &seen.what {
            // A database may be in a state between two looks, but a whole one.
            What::Database(rows) => rows.starts_with("damaged") && !rows.contains("no such table"),
            what => !self.app.ever_was(path, what),
        };
        let never = found.iter().filter(never);
        never
            .map(|(path, seen)| {
                format!(
                    "{} is {}, which it never was",
                    path.escape_ascii(),
                    tree::told(Some(seen))
                )
            })
            .collect()
    }

    /// The ids that are listed.
    pub fn listed(&self) -> Result<Vec<String>, Fault> {
        let said = self.workload.desk(&["snapshots", "-o", "json"]);
        let lines: Option<Vec<serde_json::Value>> = serde_json::from_str(&said.out).ok();
        let (Some(0), Some(lines)) = (said.code, lines) else {
            return Err(fault(
                1,
                format!("the snapshots can't be listed: {}", tail(&said.text, 800)),
            ));
        };
        if let Some(line) = lines.iter().find(|line| line["damaged"].is_string()) {
            return Err(fault(1, format!("a snapshot is damaged: {line}")));
        }
        Ok(lines
            .iter()
            .map(|line| line["id"].as_str().unwrap().to_owned())
            .collect())
    }

    /// Laws 1 and 6, of some snapshots or of all.
    pub fn check(&mut self, most: usize) -> Verdict {
        let listed = self.listed()?;
        let is_listed: BTreeSet<&String> = listed.iter().collect();
        let mut owed = self.model.keys().filter(|id| !is_listed.contains(id));
        if let Some(id) = owed.next().filter(|_| self.keeps_all) {
            return Err(fault(6, format!("{id} was acknowledged, and is not listed any more")));
        }
        if self
            .model
            .keys()
            .last()
            .is_some_and(|newest| listed.last().is_none_or(|last| last < newest))
        {
            return Err(fault(6, "nothing is listed from the last acknowledged snapshot on"));
        }
        let mut some = listed.clone();
        some.retain(|id| self.damaged.as_ref().is_none_or(|damaged| id > damaged));
        while some.len() > most {
            let which = self.dice.count(0, some.len());
            some.remove(which);
        }
        for id in some {
            self.check_one(&id)?;
        }
        Ok(())
    }

    /// Law 1, of one snapshot.
    fn check_one(&mut self, id: &str) -> Verdict {
        let found = match self.restored(id) {
            Ok(found) => found,
            // Retention may have taken it meanwhile.
            Err(wrong) if self.listed()?.iter().any(|listed| listed == id) => return Err(wrong),
            Err(_) => return Ok(()),
        };
        if let Some(Acknowledged { tree, besides }) = self.model.get(id) {
            let (tree, besides) = (tree.clone(), *besides);
            return self.expect(
                1,
                &tree,
                &found,
                besides,
                &format!("{id} is another than was acknowledged"),
            );
        }
        self.checked += 1;
        let wrong = self.never_were(&found);
        if wrong.is_empty() {
            return Ok(());
        }
        Err(fault(1, format!("{id}: {}", list(&wrong))))
    }

    /// What a snapshot brings into an empty folder.
    pub fn restored(&self, id: &str) -> Result<Tree, Fault> {
        let folder = tempfile::tempdir_in(self.workload.root.path()).unwrap();
        let to = folder.path().join("to");
        let said = self
            .workload
            .desk(&["restore", "--to", to.to_str().unwrap(), "--at", id]);
        if said.code != Some(0) {
            return Err(fault(1, format!("{id} can't be restored: {}", tail(&said.text, 1500))));
        }
        Ok(tree::look(&to.join("config"), &Connections::new()))
    }

    /// The end of a life: a graceful stop, and everything that was ever acknowledged.
    pub fn end(&mut self, most: usize) -> Verdict {
        self.note("the end");
        self.stop(2)?;
        let state = self.app.look();
        self.app.close();
        self.check(most)?;
        let (state, found) = (self.visible(state), self.restored("newest")?);
        self.expect(
            2,
            &state,
            &found,
            self.any_besides(),
            "the newest snapshot after the last stop",
        )
    }
}

/// The first of many, a line each.
pub fn list(all: &[String]) -> String {
    let mut text = String::new();
    for one in all.iter().take(12) {
        let _ = write!(text, "\n    {one}");
    }
    if all.len() > 12 {
        let _ = write!(text, "\n    … {} in all", all.len());
    }
    text
}

/// The end of a text.
pub fn tail(text: &str, length: usize) -> String {
    let text = text.trim();
    let from = text.len().saturating_sub(length);
    let from = (from..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(from);
    text[from..].to_owned()
}
