//! Orders to a running coordinator, over gRPC.

mod support;

use std::io::Write as _;
use std::net::SocketAddr;

use lockstep_proto::ids::{Generation, WorkerUid};
use lockstep_proto::{
    CoordinatorMessage, Credentials, Destination, Exit, OperatorClient, OperatorCommand, Phase,
    PlainText, SessionError, StatusClient, Verdict, WorldEnd,
};
use support::*;

const TOKEN: &[u8] = b"correct-horse-battery";

#[tokio::test]
async fn a_run_is_paused_resumed_and_stopped_from_the_command_line() {
    let (coordinator, mut first, mut second, generation) = pair(options(2)).await;
    let order = async |what: &str| ask(&[what, "--addr", &coordinator.uri]).await.unwrap();
    let said = order("pause").await;
    assert!(said.starts_with("stopping generation 1 at a step edge"), "{said}");
    for worker in [&mut first, &mut second] {
        assert!(matches!(worker.next().await, CoordinatorMessage::Stop(_)));
        worker.end(generation, WorldEnd::Stopped).await;
        worker.enlist().await;
    }
    let said = order("resume").await;
    // The workers' last words may still be on their way.
    assert!(said.starts_with("training") || said.starts_with("stopping"), "{said}");
    assert_eq!(first.world().await.generation, Generation(2));
    second.world().await;

    order("checkpoint").await;
    assert_eq!(first.next().await, CoordinatorMessage::Save(Generation(2)));
    order("stop").await;
    for worker in [&mut first, &mut second] {
        assert!(matches!(worker.next().await, CoordinatorMessage::Stop(_)));
        worker.end(Generation(2), WorldEnd::Stopped).await;
    }
    assert!(matches!(first.next().await, CoordinatorMessage::Dismiss(_)));
    drop((first, second));
    assert_eq!(coordinator.ended().await, Exit::Done);
}

#[tokio::test]
async fn a_drained_worker_is_dismissed_and_its_session_closed() {
    let coordinator = Coordinator::start(options(2)).await;
    let mut worker = Worker::join(&coordinator, "w0").await;
    worker.enlist().await;
    let mut operator = OperatorClient::connect(&coordinator.destination, None).await.unwrap();
    operator.ask(OperatorCommand::Drain(WorkerUid("w0".into()))).await.unwrap();
    let CoordinatorMessage::Dismiss(dismiss) = worker.next().await else { panic!("a dismissal") };
    assert_eq!(dismiss.exit, Exit::Done);
    assert!(worker.answer().await.is_none(), "its session is closed");
}

#[tokio::test]
async fn with_a_token_only_its_holder_is_heard() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::File::create(&file).unwrap().write_all(TOKEN).unwrap();
    let mut options = options(1);
    options.operator_token_file = Some(file.clone());
    let coordinator = Coordinator::start(options).await;
    for (shown, words) in [
        (None, "wants its operator token"),
        (
            Some(credentials(b"correct-horse-batterY")),
            "this is not the coordinator's operator token",
        ),
    ] {
        let mut operator = OperatorClient::connect(&coordinator.destination, shown).await.unwrap();
        let error = operator.ask(OperatorCommand::Stop).await.unwrap_err();
        assert!(matches!(error, SessionError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.verdict(), Verdict::GiveUp);
    }
    let file = file.display().to_string();
    ask(&["stop", "--token-file", &file, "--addr", &coordinator.uri]).await.unwrap();
    assert_eq!(coordinator.ended().await, Exit::Done);
}

#[tokio::test]
async fn a_coordinator_that_others_can_reach_takes_no_orders_without_a_token() {
    let mut options = options(1);
    options.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let coordinator = Coordinator::start(options).await;
    let destination = Destination::plain(coordinator.uri.replace("0.0.0.0", "127.0.0.1"));
    let mut operator =
        OperatorClient::connect(&destination, Some(credentials(TOKEN))).await.unwrap();
    let error = operator.ask(OperatorCommand::Stop).await.unwrap_err().to_string();
    assert!(error.contains("start it with --operator-token-file"), "{error}");
}

#[tokio::test]
async fn a_token_leaves_the_machine_encrypted_or_by_explicit_permission() {
    let far = "http://192.0.2.1:7400";
    let error = OperatorClient::connect(&Destination::plain(far), Some(credentials(TOKEN)))
        .await
        .unwrap_err();
    assert_eq!(error.verdict(), Verdict::GiveUp);
    assert_eq!(
        error.to_string(),
        "the operator token would travel to http://192.0.2.1:7400 in plain text; use https:// (the \
         coordinator's --tls-cert), a loopback address, or --send-token-in-plain-text if the network is private"
    );
    // Nothing listens there, so that one that may try gets no further.
    let allowed = Credentials { token: TOKEN, in_plain_text: PlainText::Allowed };
    let nowhere = Destination::plain("http://0.0.0.0:1");
    assert!(!nowhere.is_private());
    let error = OperatorClient::connect(&nowhere, Some(allowed)).await.unwrap_err();
    assert!(matches!(error, SessionError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_pause_outlasts_the_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(1);
    options.state_dir = Some(folder.path().to_owned());
    let coordinator = Coordinator::start(options.clone()).await;
    let mut operator = OperatorClient::connect(&coordinator.destination, None).await.unwrap();
    operator.ask(OperatorCommand::Pause).await.unwrap();
    coordinator.kill().await;

    let coordinator = Coordinator::start(options).await;
    let mut client = StatusClient::connect(&coordinator.destination).await.unwrap();
    assert_eq!(client.get_run().await.unwrap().phase, Phase::Paused);
}

fn credentials(token: &[u8]) -> Credentials<'_> {
    Credentials { token, in_plain_text: PlainText::Forbidden }
}
