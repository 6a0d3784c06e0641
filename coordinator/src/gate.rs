//! Who may operate the run.

use std::fmt::{self, Debug, Formatter};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use lockstep_proto::server::Refusal;
use sha2::{Digest, Sha256};

/// Shortest token that is not guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// Decides whether a caller of the operator service is let in.
pub(crate) enum Gate {
    /// Who shows a token with this hash.
    Token([u8; 32]),
    /// Everyone: only processes of this machine can connect.
    Loopback,
    /// Nobody: whoever reaches this address could stop the run.
    Shut(SocketAddr),
}

impl Gate {
    pub(crate) fn new(token: Option<&[u8]>, listen: SocketAddr) -> Self {
        match token {
            Some(token) => Self::Token(Sha256::digest(token).into()),
            None if listen.ip().is_loopback() => Self::Loopback,
            None => Self::Shut(listen),
        }
    }

    pub(crate) fn admit(&self, token: Option<&[u8]>) -> Result<(), Refusal> {
        let sentence = match (self, token) {
            (Self::Loopback, _) => return Ok(()),
            (Self::Token(hash), Some(token)) if same(hash, &Sha256::digest(token).into()) => {
                return Ok(());
            }
            (Self::Token(_), Some(_)) => {
                "this is not the coordinator's operator token; give the file that it was started \
                 with as --token-file"
                    .into()
            }
            (Self::Token(_), None) => {
                "the coordinator wants its operator token; give it with --token-file".into()
            }
            (Self::Shut(listen), _) => format!(
                "the coordinator listens on {listen} without an operator token, so it takes no \
                 orders; start it with --operator-token-file, or --listen on 127.0.0.1"
            ),
        };
        Err(Refusal::Denied(sentence))
    }
}

/// Never shows what stands for the token.
impl Debug for Gate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::Loopback => "Loopback",
            Self::Shut(_) => "Shut",
        })
    }
}

/// Compares hashes, all of one length, in a time that does not depend on where they differ.
fn same(ours: &[u8; 32], theirs: &[u8; 32]) -> bool {
    ours.iter().zip(theirs).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// The token in a file, without white space around it.
pub(crate) fn read_token(path: &Path) -> anyhow::Result<Vec<u8>> {
    let text = std::fs::read(path)
        .with_context(|| format!("read the operator token {}", path.display()))?;
    let token = text.trim_ascii();
    if token.len() < MIN_TOKEN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
        bail!(
            "the operator token {} has to be at least {MIN_TOKEN_BYTES} visible ASCII characters \
             without spaces; make one with `openssl rand -hex 32`",
            path.display()
        );
    }
    Ok(token.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &[u8] = b"0123456789abcdef";

    #[test]
    fn only_the_whole_token_opens() {
        let gate = Gate::new(Some(TOKEN), SocketAddr::from(([127, 0, 0, 1], 1)));
        assert_eq!(gate.admit(Some(TOKEN)), Ok(()));
        for wrong in [None, Some(&b""[..]), TOKEN.get(..15), Some(&b"0123456789abcdeF"[..])] {
            assert!(matches!(gate.admit(wrong), Err(Refusal::Denied(_))), "{wrong:?}");
        }
    }

    #[test]
    fn without_a_token_only_a_loopback_address_takes_orders() {
        assert_eq!(Gate::new(None, SocketAddr::from(([127, 0, 0, 1], 1))).admit(None), Ok(()));
        let open = Gate::new(None, SocketAddr::from(([0, 0, 0, 0], 7400)));
        let sentence = open.admit(Some(TOKEN)).unwrap_err().to_string();
        assert!(sentence.starts_with("the coordinator listens on 0.0.0.0:7400 without"));
    }

    #[test]
    fn a_gate_shows_nothing_of_its_token() {
        let gate = Gate::new(Some(TOKEN), SocketAddr::from(([127, 0, 0, 1], 1)));
        assert_eq!(format!("{gate:?}"), "Token(..)");
    }

    #[test]
    fn a_token_file_may_end_with_a_line_break_and_must_not_be_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), TOKEN);
        for bad in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcdé"] {
            std::fs::write(&path, bad).unwrap();
            let error = read_token(&path).unwrap_err().to_string();
            assert!(error.contains("at least 16 visible ASCII characters"), "{error}");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }
}
