//! Workers and a real coordinator on loopback, through the typed client.

mod support;

use coordinator::server::Server;
use lockstep_proto::ids::{Generation, Rank};
use lockstep_proto::{
    CoordinatorMessage, Destination, Exit, Hello, SessionClient, SessionError, Verdict, WorldEnd,
};
use serde_json::Value;
use support::*;

#[tokio::test]
async fn two_workers_meet_train_and_are_dismissed() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(2);
    options.reports = Some(folder.path().join("steps.jsonl"));
    let (coordinator, mut first, mut second, generation) = pair(options).await;
    for step in 0..2 {
        first.report(generation, step).await;
        second.report(generation, step).await;
    }
    first.end(generation, WorldEnd::Complete).await;
    second.end(generation, WorldEnd::Complete).await;
    for worker in [&mut first, &mut second] {
        let CoordinatorMessage::Dismiss(dismiss) = worker.next().await else { panic!("dismissal") };
        assert_eq!(dismiss.exit, Exit::Done);
    }
    drop((first, second));
    assert_eq!(coordinator.ended().await, Exit::Done);

    let history = std::fs::read_to_string(folder.path().join("steps.jsonl")).unwrap();
    let lines: Vec<Value> =
        history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "rank 0's reports only");
    assert_eq!(lines[1]["step"], 1);
    assert_eq!(lines[1]["loss"], 3.25);
    assert_eq!(lines[1]["generation"], 1);
    assert!(lines[1]["seconds"].is_f64());
}

#[tokio::test]
async fn a_worker_of_another_run_is_refused_and_should_give_up() {
    let coordinator = Coordinator::start(options(1)).await;
    let stranger = Hello { run_id: Some("other".into()), ..hello("w0") };
    let (_sender, mut messages) =
        SessionClient::connect(&coordinator.destination, stranger).await.unwrap();
    let error = messages.next().await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the coordinator refused: \
         this worker belongs to run `other`, this coordinator runs `tiny`"
    );
    assert_eq!(error.verdict(), Verdict::GiveUp);
}

#[tokio::test]
async fn a_worker_too_many_may_try_again() {
    let coordinator = Coordinator::start(options(1)).await;
    let _worker = Worker::join(&coordinator, "w0").await;
    let (_sender, mut messages) =
        SessionClient::connect(&coordinator.destination, hello("w1")).await.unwrap();
    let error = messages.next().await.unwrap().unwrap_err();
    assert!(matches!(error, SessionError::Full { .. }), "{error}");
    assert_eq!(error.verdict(), Verdict::Retry);
}

#[tokio::test]
async fn nobody_at_the_address_is_worth_another_try_and_nonsense_is_not() {
    let coordinator = Coordinator::start(options(1)).await;
    let uri = coordinator.uri.clone();
    coordinator.stop.send(()).await.unwrap();
    assert_eq!(coordinator.ended().await, Exit::Done);
    let error = SessionClient::connect(&Destination::plain(&uri), hello("w0")).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::Retry);
    assert_eq!(error.to_string(), format!("cannot reach the coordinator at {uri}"));
    let error =
        SessionClient::connect(&Destination::plain("not a uri"), hello("w0")).await.unwrap_err();
    assert_eq!(error.verdict(), Verdict::GiveUp);
}

#[tokio::test]
async fn a_broken_stream_aborts_the_world_and_the_next_one_forms() {
    let (coordinator, mut first, second, generation) = pair(options(2)).await;
    first.report(generation, 0).await;
    drop(second);
    let CoordinatorMessage::Abort(abort) = first.next().await else { panic!("an abort") };
    assert_eq!((abort.generation, abort.culprits), (generation, vec![Rank(1)]));
    first.end(generation, WorldEnd::Failed).await;
    first.enlist().await;

    let mut replacement = Worker::join(&coordinator, "w2").await;
    replacement.enlist().await;
    assert_eq!(first.world().await.generation, Generation(generation.0 + 1));
    assert_eq!(replacement.world().await.rank, Rank(1));
}

#[tokio::test]
async fn an_operators_stop_reaches_the_workers_and_ends_the_run() {
    let (coordinator, mut first, mut second, generation) = pair(options(2)).await;
    coordinator.stop.send(()).await.unwrap();
    for worker in [&mut first, &mut second] {
        assert!(matches!(worker.next().await, CoordinatorMessage::Stop(_)));
        worker.end(generation, WorldEnd::Stopped).await;
    }
    assert!(matches!(first.next().await, CoordinatorMessage::Dismiss(_)));
    drop((first, second));
    assert_eq!(coordinator.ended().await, Exit::Done);
}

#[tokio::test]
async fn generations_go_on_growing_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(2);
    options.state_dir = Some(folder.path().to_owned());
    let (coordinator, first, second, generation) = pair(options.clone()).await;
    assert_eq!(generation, Generation(1));
    for _ in 0..2 {
        coordinator.stop.send(()).await.unwrap();
    }
    drop((first, second));
    coordinator.ended().await;
    let (_coordinator, _first, _second, generation) = pair(options).await;
    assert_eq!(generation, Generation(2));
}

#[tokio::test]
async fn a_port_in_use_is_told_with_the_remedy() {
    let coordinator = Coordinator::start(options(1)).await;
    let mut second = options(1);
    second.listen = coordinator.uri.trim_start_matches("http://").parse().unwrap();
    let error = Server::bind(second).await.unwrap_err().to_string();
    assert!(error.contains("address already in use; choose another with --listen"), "{error}");
}
