//! After an upgrade (101): bytes both ways, unread, with back-pressure and half-closes passed on. Called by `core`.

use super::connection::Exchange;
use super::core::{Core, Next, client_token};
use super::link::{Link, Received};
use super::slots::Id;

/// What a direction came to.
enum Pumped {
    /// Nothing more to do now; whether bytes went through.
    Paused {
        moved: bool,
    },
    /// The turn is over.
    Yield,
    Broken,
}

impl Core {
    /// Moves what is there in both directions.
    pub(super) fn tunnel(&mut self, id: Id, exchange: &mut Exchange) -> Next {
        let Some(client) = self.clients.get_mut(id) else { return Next::Close };
        let Some(upstream) = exchange.upstream.and_then(|id| self.upstreams.get_mut(id)) else {
            return Next::Close;
        };
        let stats = &self.worker.stats;
        let (from_client, from_upstream) = (&mut client.link, &mut upstream.link);
        let up = pump(from_client, from_upstream, &mut self.scratch, &mut self.reads, |count| {
            stats.bytes_in.add(count);
            exchange.account.received += count;
        });
        let down = pump(from_upstream, from_client, &mut self.scratch, &mut self.reads, |count| {
            stats.bytes_out.add(count);
            exchange.account.sent += count;
        });
        let over = from_client.is_finished() && from_upstream.is_finished();
        match (up, down) {
            (Pumped::Broken, _) | (_, Pumped::Broken) => Next::Close,
            _ if over => Next::Close,
            (Pumped::Yield, _) | (_, Pumped::Yield) => Next::Yield,
            (Pumped::Paused { moved: up }, Pumped::Paused { moved: down }) => {
                if up || down {
                    self.wheel.set(&mut client.timer, client_token(id), exchange.patience.read);
                }
                Next::Wait
            }
        }
    }
}

fn pump(
    from: &mut Link,
    to: &mut Link,
    scratch: &mut [u8],
    reads: &mut u32,
    mut count: impl FnMut(u64),
) -> Pumped {
    let mut moved = to.has_unsent();
    if to.flush().is_err() {
        return Pumped::Broken;
    }
    loop {
        if to.has_unsent() {
            return Pumped::Paused { moved };
        }
        if from.has_ended() {
            if !to.is_finished() {
                to.finish();
            }
            return Pumped::Paused { moved };
        }
        if !from.is_readable() {
            return Pumped::Paused { moved };
        }
        if *reads == 0 {
            return Pumped::Yield;
        }
        *reads -= 1;
        match from.receive(scratch) {
            Received::Data(bytes) => {
                moved = true;
                count(bytes as u64);
                if to.send(&scratch[..bytes], &[]).is_err() {
                    return Pumped::Broken;
                }
            }
            Received::Nothing => return Pumped::Paused { moved },
            Received::End => {}
            Received::Broken => return Pumped::Broken,
        }
    }
}
