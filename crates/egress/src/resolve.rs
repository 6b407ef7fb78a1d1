//! From a destination to a connection: names are resolved here and nowhere else, and the address that was judged is the
//! address that is dialled.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use crate::address::{self, Named, Refused};
use crate::target::{Authority, Host};

/// How names become addresses.
#[derive(Clone)]
pub struct Names(Arc<Lookup>);

type Lookup = dyn Fn(String) -> Answer + Send + Sync;
type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Why a destination was not reached.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// Every address of it is one that may not be dialled.
    #[error(transparent)]
    Address(#[from] Refused),
    /// Nobody answered.
    #[error("expected a connection to {to}, got {reason}")]
    Connect {
        /// Where.
        to: Authority,
        /// What the operating system said.
        reason: String,
    },
    /// There is no such name.
    #[error("expected an address for {host}, got {reason}")]
    Name {
        /// Which.
        host: Host,
        /// What the resolver said.
        reason: String,
    },
    /// It took too long.
    #[error("expected a connection to {to} within {within:?}, got none")]
    TimedOut {
        /// Where.
        to: Authority,
        /// The bound.
        within: Duration,
    },
}

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Connects to a destination, all within one deadline.
///
/// # Errors
///
/// [`DialError`]
pub(crate) async fn dial(
    to: &Authority,
    named: &Named,
    names: &Names,
    within: Duration,
) -> Result<TcpStream, DialError> {
    let dialled = async {
        let addresses = judged(to, named, names).await?;
        let mut reason = "no address".to_owned();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            match TcpStream::connect(SocketAddr::new(address, to.port)).await {
                Ok(stream) => {
                    let _refused = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => reason = error.to_string(),
            }
        }
        Err(DialError::Connect {
            to: to.clone(),
            reason,
        })
    };
    match tokio::time::timeout(within, dialled).await {
        Ok(dialled) => dialled,
        Err(_) => Err(DialError::TimedOut {
            to: to.clone(),
            within,
        }),
    }
}

/// The addresses of a destination that may be dialled; at least one.
async fn judged(to: &Authority, named: &Named, names: &Names) -> Result<Vec<IpAddr>, DialError> {
    let name = match &to.host {
        Host::Address(address) => {
            address::judge(*address, named)?;
            return Ok(vec![*address]);
        }
        Host::Name(name) => name.clone(),
    };
    let unnamed = |reason: String| DialError::Name {
        host: to.host.clone(),
        reason,
    };
    let addresses = (names.0)(name)
        .await
        .map_err(|error| unnamed(error.to_string()))?;
    let mut refused = None;
    let allowed: Vec<IpAddr> = addresses
        .into_iter()
        .filter(|address| match address::judge(*address, named) {
            Ok(()) => true,
            Err(reason) => {
                refused.get_or_insert(reason);
                false
            }
        })
        .collect();
    match (allowed.is_empty(), refused) {
        (false, _) => Ok(allowed),
        (true, Some(refused)) => Err(refused.into()),
        (true, None) => Err(unnamed("none".to_owned())),
    }
}

// === impl Names ===

impl Names {
    /// As this machine has it.
    #[must_use]
    pub fn system() -> Self {
        Self::by(|name| async move {
            // A final dot keeps search domains out of it: what was judged is a whole name.
            let found = lookup_host((format!("{name}."), 0)).await;
            let found = match found {
                Ok(found) => found.collect::<Vec<_>>(),
                // Names of /etc/hosts have no final dot.
                Err(_) => lookup_host((name, 0)).await?.collect(),
            };
            Ok(found.into_iter().map(|address| address.ip()).collect())
        })
    }

    /// As `lookup` has it.
    pub fn by<F, A>(lookup: F) -> Self
    where
        F: Fn(String) -> A + Send + Sync + 'static,
        A: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |name| Box::pin(lookup(name))))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    fn always(addresses: &[&str]) -> Names {
        let addresses: Vec<IpAddr> = addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        Names::by(move |_| std::future::ready(Ok(addresses.clone())))
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_before_anything_is_dialled() {
        let to = Authority::parse("rebound.test:80", None).unwrap();
        for addresses in [
            &["127.0.0.1"][..],
            &["169.254.169.254"],
            &["::ffff:127.0.0.1"],
            &["10.0.0.1", "::1"],
        ] {
            let refused = dial(&to, &Named::default(), &always(addresses), WITHIN)
                .await
                .unwrap_err();
            assert!(
                matches!(refused, DialError::Address(_)),
                "{addresses:?} {refused}"
            );
        }
    }

    #[tokio::test]
    async fn the_address_that_was_judged_is_the_one_that_is_dialled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let to = Authority {
            host: Host::parse("moves.test").unwrap(),
            port,
        };
        // Another address at each question: a second one would be refused.
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let names = Names::by(move |_| {
            let first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            let address = IpAddr::from(if first { [127, 0, 0, 1] } else { [10, 0, 0, 1] });
            std::future::ready(Ok(vec![address]))
        });
        let named = Named {
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            in_full: false,
        };
        let stream = dial(&to, &named, &names, WITHIN).await.unwrap();
        assert_eq!(
            stream.peer_addr().unwrap().ip(),
            IpAddr::from([127, 0, 0, 1])
        );
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_name_without_addresses_and_a_port_without_a_listener_say_so() {
        let to = Authority::parse("nobody.test:80", None).unwrap();
        let error = dial(&to, &Named::default(), &always(&[]), WITHIN)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected an address for nobody.test, got none"
        );
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let to = Authority::parse(&free.to_string(), None).unwrap();
        let named = Named {
            networks: vec!["127.0.0.1/32".parse().unwrap()],
            in_full: false,
        };
        let error = dial(&to, &named, &always(&[]), WITHIN).await.unwrap_err();
        assert!(matches!(error, DialError::Connect { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_does_not_answer_is_given_up() {
        let to = Authority::parse("slow.test:80", None).unwrap();
        let names = Names::by(|_| std::future::pending());
        let error = dial(&to, &Named::default(), &names, WITHIN)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::TimedOut { .. }));
    }
}
