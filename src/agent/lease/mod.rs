//! Who writes at a place: what is there, whether it may be taken, and by whom. One writer by epoch, and no clock but ours:
//! whether somebody is alive is never read from a time that is stored, it is seen. And what is not there any more is not
//! believed at once.

pub mod absence;
pub mod acquire;
pub mod beat;
pub mod check;
pub mod handover;
pub mod inspect;
pub mod judge;
pub mod known;
pub mod renew;
pub mod reverted;
