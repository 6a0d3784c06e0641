//! Binding a port.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use tokio::net::TcpListener;

/// Listens on `address`; `flag` is the option that chooses another.
pub async fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(anyhow!(
            "cannot listen on {address}: address already in use; \
             choose another with {flag} or stop the process that holds it"
        )),
        other => other.with_context(|| {
            format!("cannot listen on {address}; choose an address of this machine with {flag}")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_flag_that_chooses_another() {
        let holder = listen("127.0.0.1:0".parse().unwrap(), "--listen").await.unwrap();
        let address = holder.local_addr().unwrap();
        let error = listen(address, "--listen").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen on {address}: address already in use; \
                 choose another with --listen or stop the process that holds it"
            )
        );
    }
}
