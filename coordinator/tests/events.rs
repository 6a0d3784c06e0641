//! The list of events, over gRPC and over a restart.

mod support;

use lockstep_proto::ids::Generation;
use lockstep_proto::{CoordinatorMessage, Exit, Occurrence, RunEvent, StatusClient, WorldEnd};
use support::*;

#[tokio::test]
async fn a_follower_sees_a_loss_the_recovery_and_the_end() {
    let (coordinator, mut first, second, generation) = pair(options(2)).await;
    let mut client = StatusClient::connect(&coordinator.destination).await.unwrap();
    let mut events = client.follow_events(0).await.unwrap();
    drop(second);
    let CoordinatorMessage::Abort(_) = first.next().await else { panic!("an abort") };
    first.end(generation, WorldEnd::Failed).await;
    first.enlist().await;
    let mut second = Worker::join(&coordinator, "w2").await;
    second.enlist().await;
    let generation = second.world().await.generation;
    first.world().await;
    first.report(generation, 0).await;
    for worker in [&first, &second] {
        worker.end(generation, WorldEnd::Complete).await;
    }
    assert!(matches!(first.next().await, CoordinatorMessage::Dismiss(_)));
    drop((first, second));
    assert_eq!(coordinator.ended().await, Exit::Done);

    let mut seen: Vec<RunEvent> = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event.unwrap());
    }
    let numbers: Vec<_> = seen.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (1..=seen.len() as u64).collect::<Vec<_>>(), "all, from the first");
    let at = |wanted: fn(&Occurrence) -> bool| {
        seen.iter().position(|event| wanted(&event.what)).expect("it is in the list")
    };
    let order = [
        at(|what| matches!(what, Occurrence::CoordinatorStarted { .. })),
        at(|what| matches!(what, Occurrence::WorkerJoined { .. })),
        at(|what| matches!(what, Occurrence::WorldFormed { generation: Generation(1), .. })),
        at(|what| matches!(what, Occurrence::WorkerLeft { worker, .. } if worker.0 == "w1")),
        at(|what| matches!(what, Occurrence::WorldAborted { .. })),
        at(|what| matches!(what, Occurrence::WorldFormed { generation: Generation(2), .. })),
        at(|what| matches!(what, Occurrence::TrainingRecovered { .. })),
        at(|what| matches!(what, Occurrence::RunEnded { exit: Exit::Done, .. })),
    ];
    assert!(order.is_sorted(), "{seen:?}");
}

#[tokio::test]
async fn events_survive_a_restart_and_go_on_counting() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(1);
    options.state_dir = Some(folder.path().to_owned());
    let coordinator = Coordinator::start(options.clone()).await;
    let worker = Worker::join(&coordinator, "w0").await;
    let mut client = StatusClient::connect(&coordinator.destination).await.unwrap();
    let before = client.list_events(0).await.unwrap();
    assert_eq!(before.len(), 2, "started, joined: {before:?}");
    coordinator.stop.send(()).await.unwrap();
    drop(worker);
    coordinator.ended().await;

    let coordinator = Coordinator::start(options).await;
    let mut client = StatusClient::connect(&coordinator.destination).await.unwrap();
    let mut events = client.follow_events(0).await.unwrap();
    for old in before {
        assert_eq!(events.next().await.unwrap().unwrap(), old);
    }
    let asked = events.next().await.unwrap().unwrap();
    assert_eq!(asked.what, Occurrence::OperatorAsked { command: "stop".into() });
    let ended = events.next().await.unwrap().unwrap();
    assert!(matches!(ended.what, Occurrence::RunEnded { exit: Exit::Done, .. }), "{ended:?}");
    assert_eq!(ended.sequence, 4);
}

#[tokio::test]
async fn the_events_command_prints_sentences_or_json() {
    let coordinator = Coordinator::start(options(2)).await;
    let _worker = Worker::join(&coordinator, "w0").await;
    let events = ["events", "--addr", &coordinator.uri];
    let text = ask(&[&events[..], &["--since", "2"]].concat()).await.unwrap();
    assert!(text.contains(" UTC  worker w0 joined as slot 0 on node\n"), "{text}");
    assert_eq!(text.lines().count(), 1, "from number 2 on: {text}");

    let text = ask(&[&events[..], &["--json"]].concat()).await.unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["what"], "coordinator_started");
    assert_eq!(lines[1]["what"], "worker_joined");
    assert_eq!(lines[1]["worker"], "w0");
}
