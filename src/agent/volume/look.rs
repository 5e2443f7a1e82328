//! A volume → the state that it is in. Reads only, but for copies of our own files that are damaged.

use super::Error;
use super::files::Files;
use super::marker::{MARKER, Marker, MarkerStatus, Mode, RESTORING, Restoring, UNDO};
use super::own::{Kept, OwnFolder};
use crate::store::claims::{Kinship, Owner};
use crate::store::records::VERSION;
use jiff::Timestamp;

/// What a start finds on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// No file at all.
    Empty,
    /// A start came to its end here.
    Initialised(Marker),
    /// A restore is under way.
    Interrupted(Restoring),
    /// Started on vanilla while the store was away.
    Provisional(Marker),
    /// Files, and no marker of ours.
    Foreign,
    /// The marker names somebody else.
    Others(Others),
}

/// A volume of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Others {
    /// Who.
    pub owner: Owner,
    /// What it would be, if it were ours.
    pub if_ours: Box<VolumeState>,
}

impl VolumeState {
    /// The same, if its owner is us.
    fn of(self, owner: &Owner, us: &Owner) -> Self {
        match owner.kinship(us) {
            Kinship::Other => Self::Others(Others {
                owner: owner.clone(),
                if_ours: Box::new(self),
            }),
            Kinship::Same | Kinship::OtherCluster => self,
        }
    }
}

/// Looks at the volume of this owner.
pub fn look(own: &OwnFolder, us: &Owner) -> Result<VolumeState, Error> {
    match own.read_or_damaged::<Restoring>(RESTORING)? {
        Kept::Whole(restoring) => {
            let owner = restoring.owner.clone();
            Ok(VolumeState::Interrupted(restoring).of(&owner, us))
        }
        Kept::Damaged => {
            let restoring = unknown_restore(own, us)?;
            let owner = restoring.owner.clone();
            Ok(VolumeState::Interrupted(restoring).of(&owner, us))
        }
        Kept::Nothing => look_past(own, us),
    }
}

/// A restore of which nothing is known any more but that it was under way. What there is to put back is put back; else whatever
/// the newest snapshot lacks is set aside before that is restored.
fn unknown_restore(own: &OwnFolder, us: &Owner) -> Result<Restoring, Error> {
    let marker: Option<Marker> = match own.read_or_damaged(MARKER)? {
        Kept::Whole(marker) => Some(marker),
        Kept::Damaged | Kept::Nothing => None,
    };
    let is_placing = own.join(UNDO).exists();
    let (id, owner) = marker.map_or_else(
        // A volume without an id gets one.
        || (String::new(), us.clone()),
        |marker| (marker.id, marker.owner),
    );
    Ok(Restoring {
        version: VERSION,
        id,
        owner,
        destination: String::new(),
        snapshot: None,
        mode: Mode::Replace,
        placing: is_placing,
        serves: is_placing.then(|| "a value that can't be read any more".to_owned()),
        time: Timestamp::now(),
        damaged: Vec::new(),
    })
}

/// The same, where a restore that was interrupted means nothing.
pub fn look_past(own: &OwnFolder, us: &Owner) -> Result<VolumeState, Error> {
    let marker: Option<Marker> = match own.read_or_damaged(MARKER)? {
        Kept::Whole(marker) => Some(marker),
        // Whose it was is not known: as a volume that we never saw.
        Kept::Damaged | Kept::Nothing => None,
    };
    Ok(match marker {
        Some(marker) => {
            let owner = marker.owner.clone();
            let state = match marker.status {
                MarkerStatus::Settled | MarkerStatus::Fenced => VolumeState::Initialised(marker),
                MarkerStatus::Provisional => VolumeState::Provisional(marker),
                MarkerStatus::Tier1 => VolumeState::Foreign,
            };
            state.of(&owner, us)
        }
        None => match Files::on(own.volume()).next().transpose()? {
            Some(_) => VolumeState::Foreign,
            None => VolumeState::Empty,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn owner(name: &str) -> Owner {
        Owner {
            cluster: "c1".to_owned(),
            namespace: "home".to_owned(),
            kind: "Deployment".to_owned(),
            name: name.to_owned(),
            pod: String::new(),
        }
    }

    fn marker(status: MarkerStatus) -> Marker {
        Marker {
            version: VERSION,
            id: "ab12".to_owned(),
            owner: owner("app"),
            folder: "config".to_owned(),
            status,
            epoch: 3,
            claim: None,
            since: None,
            time: Timestamp::UNIX_EPOCH,
            restored: None,
            served: Vec::new(),
            serving: None,
            bare: None,
        }
    }

    #[test]
    fn a_volume_with_nothing_but_folders_is_empty() {
        let volume = tempfile::tempdir().unwrap();
        let own = OwnFolder::on(volume.path());
        assert_eq!(look(&own, &owner("app")).unwrap(), VolumeState::Empty);
        fs::create_dir_all(volume.path().join("logs/old")).unwrap();
        fs::create_dir_all(volume.path().join("lost+found")).unwrap();
        fs::write(volume.path().join("lost+found/#12"), "x").unwrap();
        fs::create_dir_all(volume.path().join(".vixens-backup/incoming")).unwrap();
        assert_eq!(look(&own, &owner("app")).unwrap(), VolumeState::Empty);
    }

    #[test]
    fn one_file_or_link_without_a_marker_is_foreign() {
        let volume = tempfile::tempdir().unwrap();
        let own = OwnFolder::on(volume.path());
        fs::create_dir_all(volume.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("nowhere", volume.path().join("a/b/.link")).unwrap();
        assert_eq!(look(&own, &owner("app")).unwrap(), VolumeState::Foreign);
    }

    #[test]
    fn the_marker_tells_the_state() {
        let volume = tempfile::tempdir().unwrap();
        let own = OwnFolder::on(volume.path());
        for status in [MarkerStatus::Settled, MarkerStatus::Fenced] {
            own.write(MARKER, &marker(status)).unwrap();
            assert_eq!(
                look(&own, &owner("app")).unwrap(),
                VolumeState::Initialised(marker(status))
            );
        }
        assert_eq!(
            look(&own, &owner("other")).unwrap(),
            VolumeState::Others(Others {
                owner: owner("app"),
                if_ours: Box::new(VolumeState::Initialised(marker(MarkerStatus::Fenced))),
            }),
            "another workload's volume"
        );
        own.write(MARKER, &marker(MarkerStatus::Provisional)).unwrap();
        assert!(matches!(
            look(&own, &owner("app")).unwrap(),
            VolumeState::Provisional(_)
        ));
        own.write(MARKER, &marker(MarkerStatus::Tier1)).unwrap();
        assert_eq!(look(&own, &owner("app")).unwrap(), VolumeState::Foreign);
    }

    #[test]
    fn a_restore_under_way_outranks_every_marker() {
        let volume = tempfile::tempdir().unwrap();
        let own = OwnFolder::on(volume.path());
        own.write(MARKER, &marker(MarkerStatus::Settled)).unwrap();
        let restoring = Restoring {
            version: VERSION,
            id: "ab12".to_owned(),
            owner: owner("app"),
            destination: "minio:b/app".to_owned(),
            snapshot: None,
            mode: Mode::Whole,
            placing: false,
            serves: None,
            time: Timestamp::UNIX_EPOCH,
            damaged: Vec::new(),
        };
        own.write(RESTORING, &restoring).unwrap();
        assert_eq!(look(&own, &owner("app")).unwrap(), VolumeState::Interrupted(restoring));
    }

    #[test]
    fn a_marker_that_is_cut_off_is_as_good_as_none_and_is_kept_and_one_of_a_newer_release_stops() {
        let volume = tempfile::tempdir().unwrap();
        let own = OwnFolder::on(volume.path());
        own.create().unwrap();
        for text in ["", "{\"version\":1,"] {
            let _ = fs::remove_file(volume.path().join("a"));
            fs::write(own.join(MARKER), text).unwrap();
            assert_eq!(look(&own, &owner("app")).unwrap(), VolumeState::Empty);
            fs::write(volume.path().join("a"), "data").unwrap();
            assert_eq!(look(&own, &owner("app")).unwrap(), VolumeState::Foreign);
            assert_eq!(fs::read_to_string(own.join("volume.json.damaged")).unwrap(), text);
        }
        fs::write(own.join(MARKER), "{\"version\":9}").unwrap();
        assert!(matches!(look(&own, &owner("app")), Err(Error::Newer { .. })));
    }

    #[test]
    fn a_restore_that_nobody_can_read_any_more_is_under_way_all_the_same() {
        let volume = tempfile::tempdir().unwrap();
        let own = OwnFolder::on(volume.path());
        own.create().unwrap();
        for text in ["", "{\"version\":1,"] {
            fs::write(own.join(RESTORING), text).unwrap();
            let VolumeState::Interrupted(restoring) = look(&own, &owner("app")).unwrap() else {
                panic!("it is neither new nor settled");
            };
            assert_eq!(
                (restoring.snapshot, restoring.mode, restoring.placing),
                (None, Mode::Replace, false)
            );
        }
    }
}
