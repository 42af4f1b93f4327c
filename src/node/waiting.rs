//! Clients of a node that does not serve yet: commands with keys are answered LOADING, as Redis does while it reads its data.

use crate::clock::{Clock as _, SystemClock};
use crate::worker::shared::{Shared, View};
use ringfort_proxy::clients::{Address, WorkerClients};
use ringfort_proxy::session::{Mode, Session};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a command with keys is answered once the node knows the cluster.
const LOADING: &str = "LOADING Ringfort is starting: it reads its data";
/// Bytes asked for in one read.
const READ_BYTES: usize = 4 << 10;
/// Most clients that wait at a time; further ones stay in the listener's queue.
const WAITING_MAX: usize = 1000;

/// Serves clients for as long as it is polled. When it is dropped their connections close; they come back to a node that
/// serves.
pub(super) async fn serve(listener: &TcpListener, shared: &Arc<Shared>) -> Infallible {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < WAITING_MAX => match accepted {
                Ok((stream, address)) => {
                    // Their number is bounded above.
                    let Some(place) = shared.clients.accept(u64::MAX) else { continue };
                    let worker = shared.clients.worker(usize::from(shared.workers));
                    let address = Address { peer: address.to_string(), ..Address::default() };
                    let session = Session::new(Mode::Node, place, &address, worker.clone());
                    clients.spawn_local(answer(stream, session, worker, View::new(Arc::clone(shared))));
                }
                Err(error) => {
                    tracing::warn!(%error, "the client port cannot accept");
                    tokio::time::sleep(super::ACCEPT_PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Answers one client until it leaves; an error of its socket is its leaving.
async fn answer(
    mut stream: TcpStream,
    mut session: Session,
    worker: WorkerClients,
    mut view: View,
) -> std::io::Result<()> {
    let mut buffer = [0; READ_BYTES];
    loop {
        view.refresh();
        let now = SystemClock.now();
        worker.set_now(now.boot_us);
        worker.set_wall(now.wall_ms.saturating_mul(1000));
        while let Some(ticket) = session.next(&view).map(|ask| ask.ticket) {
            session.answer_error(ticket, LOADING);
        }
        while !session.output().is_empty() {
            let sent = stream.write(session.output()).await?;
            session.sent(sent);
        }
        if session.is_over() {
            return Ok(());
        }
        if session.wants_next() {
            continue;
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => session.push_input(&buffer[..n]),
        }
    }
}
