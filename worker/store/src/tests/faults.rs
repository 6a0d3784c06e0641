//! Training reads on through every fault that passes, over each protocol.

use super::*;

/// A protocol, as the loopback server is addressed by it.
struct Protocol {
    url: String,
    variables: Vec<(String, String)>,
    /// What every request must hold: the client signs, or has nothing to sign with.
    signed: &'static str,
}

/// The server's folder holds one named `bucket`.
fn protocols(server: &Server) -> [Protocol; 4] {
    let endpoint = format!("http://{}", server.address);
    let key = "c2VjcmV0IG9mIGEgdGVzdA==";
    let google = format!(
        r#"{{"gcs_base_url": "{endpoint}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
    );
    let protocol = |url: &str, signed, variables: &[(&str, &str)]| Protocol {
        url: url.to_owned(),
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        signed,
    };
    [
        protocol(&server.url("bucket/set"), "GET /bucket/set/", &[]),
        protocol(
            "s3://bucket/set",
            "authorization: AWS4-HMAC-SHA256 Credential=AKIA/",
            &[
                ("AWS_ACCESS_KEY_ID", "AKIA"),
                ("AWS_SECRET_ACCESS_KEY", key),
                ("AWS_ENDPOINT_URL", &endpoint),
                ("AWS_ALLOW_HTTP", "true"),
            ],
        ),
        protocol("gs://bucket/set", "GET /bucket/set", &[("GOOGLE_SERVICE_ACCOUNT_KEY", &google)]),
        protocol(
            "az://bucket/set",
            "authorization: SharedKey account:",
            &[
                ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                ("AZURE_STORAGE_ACCOUNT_KEY", key),
                ("AZURE_STORAGE_ENDPOINT", &endpoint),
                ("AZURE_ALLOW_HTTP", "true"),
            ],
        ),
    ]
}

#[test]
fn batches_through_any_faults_of_any_protocol_are_those_of_the_folder() {
    let scene = scene();
    let set = scene.path().join("set");
    std::os::unix::fs::symlink(".", scene.path().join("bucket")).unwrap();
    let expected = batches(Dataset::open(&set).unwrap());
    for (seed, reads) in [(1, Reads::Whole), (5, Reads::Ranged)] {
        for which in 0..4 {
            let server = Server::new(scene.path(), faulty(seed + which as u64));
            let protocol = protocols(&server).into_iter().nth(which).unwrap();
            let Protocol { url, variables, signed } = protocol;
            // Half of the set: shards come, go and come again.
            let config = config(&scene, reads, 6 * shard_bytes(&set));
            drop(std::fs::remove_dir_all(&config.cache));
            let files = StoreFiles::with_patience(&url, &config, variables, impatient());
            let found = batches(Dataset::of(Box::new(files.unwrap())).unwrap());
            assert!(found == expected, "{url}, {reads:?}");
            let requests = server.requests();
            assert!(
                requests.iter().all(|request| request.text.contains(signed)),
                "{url}: {signed}"
            );
            let files = server.counts().len();
            assert!(requests.len() > files + 5, "the server did fail: {:?}", server.counts());
        }
    }
}
