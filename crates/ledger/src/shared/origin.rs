//! How a connection comes to be: which server, over what, as whom.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo as _, Pipeline, RedisConnectionInfo, RedisFuture, RedisResult,
    TlsCertificates, TlsMode, Value,
};
use rustls::crypto::ring;

use super::config::{Password, SharedConfig};
use super::location::{Address, Location};

/// Commands that may be under way at once on one connection; one more waits within its own deadline.
const PIPELINE_LENGTH: usize = 1024;
/// What is gathered before it is written to the socket: turns are larger than the library's default.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;
/// After so long without a word the other end is asked for one.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How often a cluster is asked again when it has moved a slot or lost a node, within the deadline of
/// the operation.
const CLUSTER_RETRIES: u32 = 4;
const CLUSTER_RETRY_WAIT_MILLIS: (u64, u64) = (10, 200);

/// Where connections come from.
pub(super) enum Origin {
    Cluster(Box<ClusterClient>),
    Sentinel(Box<SentinelClient>),
    Server(Box<Client>),
}

/// A connection that many operations share at a time.
#[derive(Clone)]
pub(super) enum Connection {
    Cluster(ClusterConnection),
    Server(MultiplexedConnection),
}

impl Origin {
    /// Refuses what cannot lead anywhere: certificates and keys that cannot be read, above all.
    pub(super) fn new(config: &SharedConfig) -> RedisResult<Self> {
        if config.location.is_tls() {
            // The library takes the process's provider. One that is there already is as good.
            let _chosen_already = ring::default_provider().install_default();
        }
        let certificates = TlsCertificates {
            client_tls: config.identity.as_ref().map(|identity| ClientTlsConfig {
                client_cert: identity.certificates.clone(),
                client_key: identity.key.to_vec(),
            }),
            root_cert: config.authorities.clone(),
        };
        match &config.location {
            Location::Cluster { nodes, tls } => cluster(config, nodes, *tls, certificates),
            Location::Sentinel {
                sentinels,
                service,
                database,
                tls,
            } => {
                let primary = Primary {
                    service,
                    database: *database,
                    tls: *tls,
                };
                sentinel(config, sentinels, &primary, certificates)
            }
            Location::Server {
                address,
                database,
                tls: false,
            } => {
                let info = to(address.addr(false), *database, config)?;
                Ok(Self::Server(Box::new(Client::open(info)?)))
            }
            Location::Server {
                address,
                database,
                tls: true,
            } => {
                let info = to(address.addr(true), *database, config)?;
                let client = Client::build_with_tls(info, certificates)?;
                Ok(Self::Server(Box::new(client)))
            }
            Location::Socket { path, database } => {
                let info = to(ConnectionAddr::Unix(path.clone()), *database, config)?;
                Ok(Self::Server(Box::new(Client::open(info)?)))
            }
        }
    }

    /// A connection to whichever server it is now.
    pub(super) async fn connect(&mut self, within: Duration) -> RedisResult<Connection> {
        // Each operation has its own deadline.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(within))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_LENGTH)
            .set_write_backpressure_boundary(WRITE_BUFFER_BYTES);
        Ok(match self {
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
            Self::Sentinel(client) => {
                Connection::Server(client.get_async_connection_with_config(&config).await?)
            }
            Self::Server(client) => Connection::Server(
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?,
            ),
        })
    }

    /// How many operations in a row must fail before the connection is given up: a cluster's reaches
    /// several servers, and finds those that replace them by itself.
    pub(super) fn patience(&self) -> u32 {
        match self {
            Self::Cluster(_) => 3,
            Self::Sentinel(_) | Self::Server(_) => 1,
        }
    }
}

fn cluster(
    config: &SharedConfig,
    nodes: &[Address],
    tls: bool,
    certificates: TlsCertificates,
) -> RedisResult<Origin> {
    let nodes: RedisResult<Vec<ConnectionInfo>> = nodes
        .iter()
        .map(|node| to(node.addr(tls), 0, config))
        .collect();
    let (least, most) = CLUSTER_RETRY_WAIT_MILLIS;
    let mut client = ClusterClient::builder(nodes?)
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(least)
        .max_retry_wait(most)
        .connection_timeout(config.deadline)
        .response_timeout(config.deadline)
        .tcp_settings(tcp())
        .write_backpressure_boundary(WRITE_BUFFER_BYTES);
    if tls {
        client = client.tls(TlsMode::Secure).certs(certificates);
    }
    Ok(Origin::Cluster(Box::new(client.build()?)))
}

/// What sentinels are asked for.
struct Primary<'a> {
    service: &'a str,
    database: u32,
    tls: bool,
}

fn sentinel(
    config: &SharedConfig,
    sentinels: &[Address],
    primary: &Primary<'_>,
    certificates: TlsCertificates,
) -> RedisResult<Origin> {
    let Primary {
        service,
        database,
        tls,
    } = *primary;
    let sentinels = sentinels.iter().map(|sentinel| sentinel.addr(tls));
    let mut client = SentinelClientBuilder::new(sentinels, service, SentinelServerType::Master)?
        .set_client_to_redis_db(i64::from(database))
        .set_client_to_redis_tcp_settings(tcp());
    if let Some(name) = &config.username {
        client = client.set_client_to_redis_username(name);
    }
    if let Some(Password(password)) = &config.password {
        client = client.set_client_to_redis_password(password.as_str());
    }
    if let Some(Password(password)) = &config.sentinel_password {
        client = client.set_client_to_sentinel_password(password.as_str());
    }
    if tls {
        client = client
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    Ok(Origin::Sentinel(Box::new(client.build()?)))
}

/// What is said at the beginning of a connection to `addr`.
fn to(addr: ConnectionAddr, database: u32, config: &SharedConfig) -> RedisResult<ConnectionInfo> {
    let mut greeting = RedisConnectionInfo::default().set_db(i64::from(database));
    if let Some(name) = &config.username {
        greeting = greeting.set_username(name);
    }
    if let Some(Password(password)) = &config.password {
        greeting = greeting.set_password(password.as_str());
    }
    let info = addr.into_connection_info()?;
    Ok(info.set_redis_settings(greeting).set_tcp_settings(tcp()))
}

/// A recall is two small messages: neither may wait for more to send. A connection that something
/// between here and the store has forgotten is noticed before it is needed.
fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive)
}

impl Address {
    fn addr(&self, tls: bool) -> ConnectionAddr {
        let (host, port) = (self.host.clone(), self.port);
        if tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Cluster(connection) => connection.req_packed_command(cmd),
            Self::Server(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Server(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Cluster(connection) => connection.get_db(),
            Self::Server(connection) => connection.get_db(),
        }
    }
}
