//! What a run is told by its environment, and how it tells what came of it.

use super::dice::Dice;
use super::life::{Fault, Verdict};
use super::pod::Workload;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// The former release's program.
pub const FORMER: &str = "former-release";

/// What a run is told.
pub struct Settings {
    /// `TORTURE_SEED`: the first seed; by itself any in a long run, and 1 in that of `make test`.
    seed: u64,
    /// `TORTURE_STORE`.
    pub store: String,
    /// `TORTURE_MINUTES`: no new step begins after so long.
    length: Duration,
    /// `TORTURE_STEPS`: each life has exactly so many, however long that takes.
    steps: Option<u64>,
    /// `TORTURE_WITHOUT`: names of steps that are replaced by plain work, joined by commas, to look beyond what is known.
    pub without: Vec<String>,
    /// `TORTURE_PROGRAM`: another build of the program, such as the former release.
    pub program: PathBuf,
    /// `TORTURE_KEEP`: a folder that gets what a broken life leaves.
    kept: Option<PathBuf>,
    /// Whether somebody asked for more than the short run of `make test`.
    is_long: bool,
}

/// What is told of a life.
pub struct Told {
    /// What was done.
    pub steps: Vec<String>,
    /// How often it was compared.
    pub checked: u64,
    /// What the last pod said.
    pub log: String,
}

/// A verdict, or a panic of the test itself.
pub type Lived = thread::Result<Verdict>;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Settings {
    /// Reads the environment.
    pub fn read() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let minutes = variable("TORTURE_MINUTES").map(|text| text.parse::<f64>().unwrap());
        let is_long = minutes.is_some() || variable("TORTURE_STEPS").is_some();
        // What is new is looked for by those who asked for it: the short run judges a change, and does the same each time.
        let first = if is_long { now.as_secs() % 1_000_000 } else { 1 };
        Self {
            seed: variable("TORTURE_SEED").map_or(first, |text| text.parse().unwrap()),
            store: variable("TORTURE_STORE").unwrap_or_else(|| "s3".to_owned()),
            length: Duration::from_secs_f64(60.0 * minutes.unwrap_or(0.5)),
            steps: variable("TORTURE_STEPS").map(|text| text.parse().unwrap()),
            without: variable("TORTURE_WITHOUT")
                .map(|text| text.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            program: variable("TORTURE_PROGRAM")
                .unwrap_or_else(|| env!("CARGO_BIN_EXE_vixens-backup").to_owned())
                .into(),
            kept: variable("TORTURE_KEEP").map(PathBuf::from),
            is_long,
        }
    }

    /// The program of the former release; none where it can't be had, which is said: it is built from an earlier commit, and
    /// a source archive has none.
    pub fn former() -> Option<PathBuf> {
        let found = super::support::found(FORMER);
        if found.is_none() {
            let is_clone = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
            assert!(
                !is_clone,
                "the former release is not there: build it with `.tools/install former-release`"
            );
            tell("skipped: the former release is built from an earlier commit, and this is no git clone");
        }
        found
    }

    /// Whether a step, or what else goes by a name in `TORTURE_WITHOUT`, is left out.
    pub fn is_without(&self, name: &str) -> bool {
        self.without.iter().any(|without| without == name)
    }

    /// How many steps the life of a seed has.
    pub fn steps(&self, seed: u64) -> u64 {
        self.steps.unwrap_or_else(|| Dice::new(seed, "steps").range(12, 45))
    }

    /// Whether a life is to come to its end.
    pub fn is_over(&self, deadline: Instant) -> bool {
        self.steps.is_none() && Instant::now() > deadline
    }

    /// How many snapshots are restored at the end of a life.
    pub fn most_at_the_end(&self) -> usize {
        if self.is_long { usize::MAX } else { 4 }
    }

    /// What a broken life leaves is copied where somebody can look at it.
    pub fn keep(&self, workload: &Workload, lived: &Lived) {
        if let (Some(kept), Err(_) | Ok(Err(_))) = (&self.kept, lived) {
            for from in [workload.root.path(), workload.store.folder()] {
                let _ = Command::new("cp").arg("-a").arg(from).arg(kept).status();
            }
        }
    }

    /// Lives seed after seed until the time is over; fails where a law was broken, at the end.
    pub fn each_seed(&self, test: &str, mut live: impl FnMut(u64, Instant) -> (Lived, Told)) {
        let (begun, mut broken) = (Instant::now(), Vec::new());
        let deadline = begun + self.length;
        let (mut seed, mut steps, mut checked) = (self.seed, 0, 0);
        loop {
            let at = Instant::now();
            tell(&format!("torture: {test}: {} seed {seed} begins", self.store));
            let (lived, told) = live(seed, deadline);
            let said = match lived {
                Ok(Ok(())) => None,
                Ok(Err(Fault { law, what })) => Some(format!("law {law} is broken: {what}")),
                Err(panic) => Some(format!("the test itself failed: {}", message(panic.as_ref()))),
            };
            steps += told.steps.len();
            checked += told.checked;
            let seconds = at.elapsed().as_secs();
            let verdict = said.as_deref().map_or("holds", |_| "BROKEN");
            tell(&format!(
                "torture: {test}: {} seed {seed}: {verdict} after {seconds} s; so far {} seeds, {steps} steps, {checked} comparisons, {} broken",
                self.store,
                seed - self.seed + 1,
                broken.len() + usize::from(said.is_some())
            ));
            if let Some(said) = said {
                let report = self.report(test, seed, &said, &told);
                tell(&report);
                broken.push(report);
            }
            seed += 1;
            if Instant::now() > deadline || self.steps.is_some() || broken.len() >= 5 {
                break;
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n\n"));
    }

    fn report(&self, which: &str, seed: u64, broken: &str, lived: &Told) -> String {
        let mut text = format!("{} seed {seed}: {broken}\n", self.store);
        // Writing to a String does not fail.
        let _ = writeln!(text, "what was done:");
        for step in &lived.steps {
            let _ = writeln!(text, "  {step}");
        }
        let _ = writeln!(text, "what the last pod said:\n{}", lived.log);
        let steps = lived
            .steps
            .iter()
            .filter(|step| !step.starts_with(' '))
            .count()
            .saturating_sub(1);
        let _ = writeln!(
            text,
            "again:{} TORTURE_SEED={seed} TORTURE_STORE={} TORTURE_STEPS={steps} cargo test --test torture -- --nocapture {which}",
            if self.without.is_empty() {
                String::new()
            } else {
                format!(" TORTURE_WITHOUT={}", self.without.join(","))
            },
            self.store
        );
        text
    }
}

/// Says something at once, and where the test passes too: seeds are to be seen.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}
