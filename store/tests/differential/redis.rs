//! A `redis-server` to compare with.

use std::{
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A server of a test's own on a free port, in a folder of its own; ends with it.
pub(crate) struct Redis {
    process: Child,
    dir: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Redis {
    /// Starts a server with further arguments; `None` when there is no `redis-server`.
    pub(crate) fn start(more: &[&str]) -> Option<Self> {
        // The free port may be taken by somebody else before the server binds it.
        (0..5).find_map(|_| match Self::try_start(more) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(None),
            Err(_) => None,
            Ok(redis) => Some(Some(redis)),
        })?
    }

    fn try_start(more: &[&str]) -> std::io::Result<Self> {
        let [address, bus] = {
            let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
            [ports[0].local_addr()?, ports[1].local_addr()?]
        };
        let port = address.port().to_string();
        let dir = std::env::temp_dir().join(format!("ringfort-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let mut process = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--proto-max-bulk-len", "32mb", "--databases", "1", "--daemonize", "no", "--logfile", ""])
            .args(["--cluster-port", &bus.port().to_string()])
            .args(more)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        // The log ends when the server does, so this waits neither blindly nor for ever.
        let mut log = BufReader::new(process.stdout.take().expect("standard output is piped")).lines();
        let is_ready = log.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to accept"));
        // Nobody reads on, or a full pipe would stop the server.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        let redis = Self { process, dir, address };
        if is_ready { Ok(redis) } else { Err(std::io::Error::other("the port is taken")) }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
