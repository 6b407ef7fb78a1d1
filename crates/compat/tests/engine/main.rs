//! The engine as a whole: transcripts, invariants, and mistakes made once.

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod regression;
#[cfg(test)]
mod support;
