//! Who may take part where a coordinator wants certificates: the programs themselves, and what they say.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use certificates::{Authority, Signed, Validity};
use lockstep_tests::{Ended, Process, Scene};

#[path = "../../coordinator/tests/support/certificates.rs"]
#[allow(
    dead_code,
    reason = "of the helpers that the coordinator's tests use, only some are needed here"
)]
mod certificates;

/// A coordinator for one worker and three steps that wants certificates and, from operators, a token.
struct Guarded {
    scene: Scene,
    authority: Authority,
    coordinator: Process,
    address: String,
}

#[test]
fn a_worker_and_an_operator_with_good_certificates_get_in() {
    let guarded = Guarded::start("1000000");
    let own = guarded.authority.sign("worker", Validity::Now);
    let mut worker = guarded.worker("good", &guarded.address, &guarded.authority, Some(&own));
    let reports = guarded.scene.path("c.jsonl");
    worker.wait_until(|| {
        std::fs::read_to_string(&reports).is_ok_and(|text| text.lines().count() >= 3)
    });

    let own = guarded.authority.sign("operator", Validity::Now);
    let refused = guarded.stop("no-token", &own, None);
    assert_refused(&refused, "the coordinator wants its operator token; give it with --token-file");
    let stopped = guarded.stop("token", &own, Some("token"));
    assert_eq!(stopped.code, Some(0), "{}", stopped.said);
    for process in [worker, guarded.coordinator] {
        let ended = process.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.said);
    }
}

#[test]
fn a_worker_that_may_not_take_part_is_told_what_it_lacks() {
    let guarded = Guarded::start("3");
    let (ours, theirs) = (&guarded.authority, Authority::new(&guarded.scene.path(""), "other"));
    let refused = |name: &str, trusts: &Authority, own: Option<&Signed>, words: &str| {
        assert_refused(&guarded.worker(name, &guarded.address, trusts, own).wait(), words);
    };
    refused("none", ours, None, "the coordinator wants a certificate of its clients");
    let own = theirs.sign("stranger", Validity::Now);
    refused("stranger", ours, Some(&own), "does not accept the certificate in --tls-cert");
    let own = ours.sign("expired", Validity::Over);
    refused("expired", ours, Some(&own), "the certificate in --tls-cert has expired");
    let own = ours.sign("suspicious", Validity::Now);
    let words = "the coordinator's certificate was not signed by the authority in --tls-ca";
    refused("suspicious", &theirs, Some(&own), words);

    let plain = guarded.address.replace("https", "http");
    let ended = guarded.scene.join("plain", &plain, "ck", &[]).wait();
    assert_refused(&ended, "speaks TLS; connect with https:// and --tls-ca");
}

#[track_caller]
fn assert_refused(ended: &Ended, words: &str) {
    assert_eq!(ended.code, Some(42), "{}", ended.said);
    assert!(ended.said.contains(words), "`{words}` is not in: {}", ended.said);
}

impl Guarded {
    fn start(steps: &str) -> Self {
        let scene = Scene::new();
        let authority = Authority::new(&scene.path(""), "authority");
        let own = authority.sign("127.0.0.1", Validity::Now);
        std::fs::write(scene.path("token"), "correct-horse-battery").unwrap();
        let steps = format!("schedule.steps={steps}");
        let more = [
            ["--tls-cert", text(&own.cert)],
            ["--tls-key", text(&own.key)],
            ["--client-ca", text(&authority.file)],
            ["--operator-token-file", "token"],
            ["--set", &steps],
        ];
        let (coordinator, address) = scene.serve("c", 1, more.as_flattened());
        assert!(address.starts_with("https://"), "{address}");
        Self { scene, authority, coordinator, address }
    }

    fn worker(
        &self,
        name: &str,
        address: &str,
        trusts: &Authority,
        own: Option<&Signed>,
    ) -> Process {
        self.scene.join(name, address, "ck", &flags(trusts, own))
    }

    fn stop(&self, name: &str, own: &Signed, token: Option<&str>) -> Ended {
        let mut arguments = vec!["stop", "--addr", &self.address];
        arguments.extend(flags(&self.authority, Some(own)));
        arguments.extend(token.into_iter().flat_map(|token| ["--token-file", token]));
        self.scene.coordinator(name, &arguments).wait()
    }
}

/// A client's arguments.
fn flags<'a>(trusts: &'a Authority, own: Option<&'a Signed>) -> Vec<&'a str> {
    let own = own.map(|own| ["--tls-cert", text(&own.cert), "--tls-key", text(&own.key)]);
    ["--tls-ca", text(&trusts.file)].into_iter().chain(own.into_iter().flatten()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
