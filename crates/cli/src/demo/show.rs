use crate::failure::Failure;
use crate::output::Output;
use super::trajectory::Demonstration;
pub(crate) fn show(_d: &Demonstration, _o: &Output) -> Result<(), Failure> { Ok(()) }
