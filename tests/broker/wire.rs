//! A wire between a client and a broker that can be cut: nothing comes through, nobody is told, and what was on its way arrives when it is mended.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Listens on a port of this machine until the test process ends.
pub struct Wire {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Port of the broker, once it is known.
    end: Mutex<Option<u16>>,
    cut: Mutex<bool>,
    mended: Condvar,
}

impl State {
    /// Comes back when nothing is cut.
    fn pass(&self) {
        let cut = self.cut.lock().unwrap();
        drop(self.mended.wait_while(cut, |cut| *cut).unwrap());
    }

    /// Carries bytes one way.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            self.pass();
            if to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        // That one end has gone is also news that a cut wire does not carry.
        self.pass();
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

impl Wire {
    pub fn start() -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let state = Arc::clone(&wire.state);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), state) = (near, Arc::clone(&state)) else { continue };
                std::thread::spawn(move || {
                    state.pass();
                    let end = *state.end.lock().unwrap();
                    let Some(far) = end.and_then(|end| TcpStream::connect(("127.0.0.1", end)).ok()) else { return };
                    let (Ok(other_near), Ok(other_far)) = (near.try_clone(), far.try_clone()) else { return };
                    let back = Arc::clone(&state);
                    std::thread::spawn(move || back.carry(other_far, other_near));
                    state.carry(near, far);
                });
            }
        });
        wire
    }

    /// Where it ends.
    pub fn to(&self, port: u16) {
        *self.state.end.lock().unwrap() = Some(port);
    }

    pub fn cut(&self) {
        *self.state.cut.lock().unwrap() = true;
    }

    pub fn mend(&self) {
        *self.state.cut.lock().unwrap() = false;
        self.state.mended.notify_all();
    }
}
