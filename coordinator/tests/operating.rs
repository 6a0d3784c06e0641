//! Orders to a running coordinator, over gRPC.

mod support;

use std::io::Write as _;
use std::net::SocketAddr;

use coordinator::cli::{Command, OperatorArgs};
use lockstep_proto::ids::{Generation, WorkerUid};
use lockstep_proto::{
    CoordinatorMessage, Exit, OperatorClient, OperatorCommand, Phase, SessionError, StatusClient,
    Verdict, WorldEnd,
};
use support::*;

const TOKEN: &[u8] = b"correct-horse-battery";

#[tokio::test]
async fn a_run_is_paused_resumed_and_stopped_from_the_command_line() {
    let (coordinator, mut first, mut second, generation) = pair(options(2)).await;
    let args = || OperatorArgs { token_file: None, addr: coordinator.uri.clone() };
    let said = printed(Command::Pause(args())).await;
    assert!(said.starts_with("stopping generation 1 at a step edge"), "{said}");
    for worker in [&mut first, &mut second] {
        assert!(matches!(worker.next().await, CoordinatorMessage::Stop(_)));
        worker.end(generation, WorldEnd::Stopped).await;
        worker.enlist().await;
    }
    let said = printed(Command::Resume(args())).await;
    // The workers' last words may still be on their way.
    assert!(said.starts_with("training") || said.starts_with("stopping"), "{said}");
    assert_eq!(first.world().await.generation, Generation(2));
    second.world().await;

    printed(Command::Checkpoint(args())).await;
    assert_eq!(first.next().await, CoordinatorMessage::Save(Generation(2)));
    printed(Command::Stop(args())).await;
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
    let mut operator = OperatorClient::connect(&coordinator.uri, None).await.unwrap();
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
    for (token, words) in [
        (None, "wants its operator token"),
        (Some(&b"correct-horse-batterY"[..]), "this is not the coordinator's operator token"),
    ] {
        let mut operator = OperatorClient::connect(&coordinator.uri, token).await.unwrap();
        let error = operator.ask(OperatorCommand::Stop).await.unwrap_err();
        assert!(matches!(error, SessionError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.verdict(), Verdict::GiveUp);
    }
    let addr = coordinator.uri.clone();
    printed(Command::Stop(OperatorArgs { token_file: Some(file), addr })).await;
    assert_eq!(coordinator.ended().await, Exit::Done);
}

#[tokio::test]
async fn a_coordinator_that_others_can_reach_takes_no_orders_without_a_token() {
    let mut options = options(1);
    options.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let coordinator = Coordinator::start(options).await;
    let uri = coordinator.uri.replace("0.0.0.0", "127.0.0.1");
    let mut operator = OperatorClient::connect(&uri, Some(TOKEN)).await.unwrap();
    let error = operator.ask(OperatorCommand::Stop).await.unwrap_err().to_string();
    assert!(error.contains("start it with --operator-token-file"), "{error}");
}

#[tokio::test]
async fn a_pause_outlasts_the_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(1);
    options.state_dir = Some(folder.path().to_owned());
    let coordinator = Coordinator::start(options.clone()).await;
    let mut operator = OperatorClient::connect(&coordinator.uri, None).await.unwrap();
    operator.ask(OperatorCommand::Pause).await.unwrap();
    coordinator.kill().await;

    let coordinator = Coordinator::start(options).await;
    let mut client = StatusClient::connect(&coordinator.uri).await.unwrap();
    assert_eq!(client.get_run().await.unwrap().phase, Phase::Paused);
}

async fn printed(command: Command) -> String {
    let mut out = Vec::new();
    coordinator::ask(command, &mut out).await.expect("the coordinator answers");
    String::from_utf8(out).expect("it prints text")
}
