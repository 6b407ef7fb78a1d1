//! A WebSocket that both sides agreed on, to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use farrier_secrets::Places;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::ask::Ask;
use crate::exchange::{Talk, Upgraded};
use crate::inject::{InjectError, Lender, Place};
use crate::record::Record;
use crate::sandbox::{Sandbox, Standing};
use crate::tunnel::{End, Moved, silence, splice};
use crate::websocket::{CLOSED_BY_POLICY, Frames, Violation};

/// Why what a client says ends its WebSocket.
#[derive(Debug, thiserror::Error)]
enum Unsaid {
    #[error(transparent)]
    Inject(#[from] InjectError),
    #[error(
        "expected an endpoint that allows clients to speak, got one that only lets them listen"
    )]
    NotAllowed,
    #[error("one of the two sides went away")]
    Stream(#[from] std::io::Error),
    #[error(transparent)]
    Violation(#[from] Violation),
}

const READ_BYTES: usize = 16 * 1024;

impl Sandbox {
    /// Both directions, until one ends, nothing moves, or the rules do not allow it any more.
    pub(crate) async fn websocket<S>(
        self: &Arc<Self>,
        client: S,
        upgraded: Upgraded,
        mut record: Record,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Upgraded {
            ask,
            upstream,
            talk,
            ..
        } = upgraded;
        let upstream = match timeout(self.limits.handshake, upstream).await {
            Ok(Ok(upstream)) => TokioIo::new(upstream),
            Ok(Err(_)) | Err(_) => return record.broke("upstream_closed"),
        };
        let standing = Standing::of_request(self, ask.clone());
        let moved = Arc::clone(&record.moved);
        let talking = async {
            match talk {
                Talk::Passes => Ok(splice(client, upstream, &moved, self.limits.idle).await),
                Talk::Refused => {
                    self.resolving(client, upstream, (&ask, None), &mut record)
                        .await
                }
                Talk::Resolved { also } => {
                    self.resolving(client, upstream, (&ask, Some(also)), &mut record)
                        .await
                }
            }
        };
        let ended = tokio::select! {
            ended = talking => ended,
            () = standing.lapsed() => return record.broke("policy_changed"),
        };
        match ended {
            Ok(End::Complete) => {}
            Ok(End::Failed) | Err(Unsaid::Stream(_)) => record.broke("websocket_broken"),
            Ok(End::Idle) => record.broke("websocket_idle"),
            Err(unsaid) => {
                record.broke(unsaid.as_str());
                record.line.reason = Some(unsaid.to_string());
            }
        }
    }

    /// As a tunnel, but for what the client says.
    async fn resolving<C, U>(
        &self,
        client: C,
        upstream: U,
        (ask, also): (&Ask, Option<Places>),
        record: &mut Record,
    ) -> Result<End, Unsaid>
    where
        C: AsyncRead + AsyncWrite,
        U: AsyncRead + AsyncWrite,
    {
        let moved = Arc::clone(&record.moved);
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
        let up = async {
            let mut frames = Frames::new(self.limits.max_message_bytes);
            let mut read = vec![0; READ_BYTES];
            let mut out = Vec::new();
            loop {
                let length = client_read.read(&mut read).await?;
                if length == 0 {
                    upstream_write.shutdown().await?;
                    return Ok::<(), Unsaid>(());
                }
                frames.feed(&read[..length], &mut out, |text| {
                    let also = also.ok_or(Unsaid::NotAllowed)?;
                    Ok::<_, Unsaid>(self.said(ask, also, text, record)?)
                })?;
                upstream_write.write_all(&out).await?;
                upstream_write.flush().await?;
                moved.up.fetch_add(length as u64, Ordering::Relaxed);
                out.clear();
            }
        };
        let down = listen(&mut upstream_read, &mut client_write, &moved);
        let ended = tokio::select! {
            both = async { tokio::try_join!(up, down) } => both.map(|((), ())| End::Complete),
            () = silence(&moved, self.limits.idle) => Ok(End::Idle),
        };
        if !matches!(ended, Ok(_) | Err(Unsaid::Stream(_))) {
            let _told = timeout(
                self.limits.handshake,
                client_write.write_all(&CLOSED_BY_POLICY),
            )
            .await;
            let _closed = timeout(self.limits.handshake, client_write.shutdown()).await;
        }
        ended
    }

    /// A text message with what its fields stand for, by the secrets of now.
    fn said(
        &self,
        ask: &Ask,
        also: Places,
        text: &str,
        record: &mut Record,
    ) -> Result<Option<Zeroizing<String>>, InjectError> {
        let attached = self.attached(&self.ruled()).1;
        let host = ask.to.host.bare();
        let lender = Lender::new(&attached, ask.destination(&host, &ask.path.written), also);
        let resolved = lender.json(text, Place::WebSocket)?;
        let names = &mut record.line.credentials;
        names.extend(lender.into_lent().0);
        names.sort_unstable();
        names.dedup();
        Ok(resolved)
    }
}

async fn listen(
    from: &mut (impl AsyncRead + Unpin),
    into: &mut (impl AsyncWrite + Unpin),
    moved: &Moved,
) -> Result<(), Unsaid> {
    let mut bytes = vec![0; READ_BYTES];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            into.shutdown().await?;
            return Ok(());
        }
        into.write_all(&bytes[..length]).await?;
        into.flush().await?;
        moved.down.fetch_add(length as u64, Ordering::Relaxed);
    }
}

impl Unsaid {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Inject(InjectError::Refused(farrier_secrets::Refusal::EndpointMismatch {
                ..
            })) => "credential_endpoint_mismatch",
            Self::Inject(InjectError::Refused(_)) => "credential_unavailable",
            Self::Inject(_) => "credential_misplaced",
            Self::NotAllowed => "policy_denied",
            Self::Stream(_) => "websocket_broken",
            Self::Violation(_) => "websocket_malformed",
        }
    }
}
