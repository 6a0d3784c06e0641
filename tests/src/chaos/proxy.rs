//! A stretch of network that can be cut or slow: a TCP proxy, in this process.
//!
//! A cut loses nothing that TCP would not repeat: bytes wait until it is mended, and nobody is told.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// It carries everything at once.
    Fine,
    /// Every piece takes this much longer.
    Slow(Duration),
    /// Nothing passes.
    Cut,
    /// The proxy is gone.
    Gone,
}

/// Forwards connections. Ends with the value.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<State>,
    address: SocketAddr,
}

#[derive(Debug)]
struct State {
    network: Mutex<Network>,
    changed: Condvar,
}

impl Proxy {
    /// Listens on `listen` (port 0: a free one) and forwards to `to`, where somebody may listen later only.
    pub fn start(listen: SocketAddr, to: SocketAddr) -> Self {
        Self::over(TcpListener::bind(listen).expect("a port for the proxy"), to)
    }

    /// Listens on `near` and forwards to the same port of `far`: any port that is free on both.
    pub fn start_beside(near: Ipv4Addr, far: Ipv4Addr) -> Self {
        let ports = std::iter::repeat_with(|| TcpListener::bind((near, 0)).expect("a port"));
        let both_free = |listener: &TcpListener| {
            let port = listener.local_addr().expect("it is bound").port();
            TcpListener::bind((far, port)).is_ok().then(|| SocketAddr::from((far, port)))
        };
        let mut free = ports.filter_map(|listener| both_free(&listener).map(|far| (listener, far)));
        let (listener, far) = free.next().expect("endless");
        Self::over(listener, far)
    }

    fn over(listener: TcpListener, to: SocketAddr) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State { network: Mutex::new(Network::Fine), changed: Condvar::new() });
        let of_thread = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if of_thread.now() == Network::Gone {
                    return;
                }
                let state = Arc::clone(&of_thread);
                thread::spawn(move || carry(&stream, to, &state));
            }
        });
        Self { state, address }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the network, for connections that are open too.
    pub fn set(&self, network: Network) {
        *self.state.network.lock().unwrap_or_else(PoisonError::into_inner) = network;
        self.state.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Network::Gone);
        drop(TcpStream::connect(self.address)); // wakes the listener
    }
}

impl State {
    fn now(&self) -> Network {
        *self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while nothing passes. False: no longer.
    fn pass(&self) -> bool {
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let network = self.changed.wait_while(network, |network| *network == Network::Cut);
        let network = *network.unwrap_or_else(PoisonError::into_inner);
        if let Network::Slow(delay) = network {
            pause(delay);
        }
        network != Network::Gone
    }
}

fn carry(near: &TcpStream, to: SocketAddr, state: &Arc<State>) {
    if !state.pass() {
        return;
    }
    let Ok(far) = TcpStream::connect(to) else { return };
    let pump = |from: &TcpStream, to: &TcpStream| {
        let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
        let state = Arc::clone(state);
        thread::spawn(move || pump(from, to, &state))
    };
    for stream in [near, &far] {
        drop(stream.set_nodelay(true));
    }
    drop((pump(near, &far), pump(&far, near)));
}

/// One direction, until either end closes.
fn pump(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !state.pass() || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // The end of a stream does not pass a cut either.
    state.pass();
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}

#[expect(clippy::disallowed_methods, reason = "a slow network takes time")]
fn pause(time: Duration) {
    thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            }
        });
        address
    }

    #[test]
    fn what_is_sent_into_a_cut_arrives_once_it_is_mended() {
        let proxy = Proxy::start("127.0.0.1:0".parse().unwrap(), echo());
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        let mut byte = [0];
        stream.write_all(b"a").unwrap();
        stream.read_exact(&mut byte).unwrap();
        proxy.set(Network::Cut);
        stream.write_all(b"b").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(stream.read_exact(&mut byte).is_err(), "nothing passes");
        proxy.set(Network::Fine);
        stream.set_read_timeout(None).unwrap();
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
    }
}
