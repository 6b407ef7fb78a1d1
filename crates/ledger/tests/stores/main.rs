//! What every ledger must do, and what each store must do besides.

#[cfg(test)]
mod embedded;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod outbox;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod suite;
