//! The registry as its callers see it: loading, matching, merging, explaining, and
//! what is shipped.

mod catalogue;
mod loading;
mod openclaw;
mod rivals;
mod shipped;
mod support;
