//! What people, scripts and dashboards see of a run.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use lockstep_proto::ids::{Rank, Step};
use lockstep_proto::{Phase, RunStatus, StatusClient};
use support::*;
use tonic::transport::Endpoint;

#[tokio::test]
async fn status_over_grpc_follows_the_run() {
    let (coordinator, first, _second, generation) = pair(options(2)).await;
    let mut client = StatusClient::connect(&coordinator.destination).await.unwrap();
    first.report(generation, 0).await;
    let run = when(&mut client, |run| run.step == Step(1)).await;
    assert_eq!((run.phase, run.total_steps, run.world_size), (Phase::Running, 20, 2));
    assert_eq!((run.loss, run.probe_accuracy), (Some(3.25), Some(0.5)));

    let workers = client.list_workers().await.unwrap();
    assert_eq!(workers.len(), 2);
    assert_eq!((workers[1].rank, workers[1].lanes), (Some(Rank(1)), 32));
}

#[tokio::test]
async fn a_watcher_sees_changes_and_the_end() {
    let coordinator = Coordinator::start(options(2)).await;
    let mut client = StatusClient::connect(&coordinator.destination).await.unwrap();
    let mut changes = client.watch_run(std::time::Duration::from_millis(1)).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().connected_workers, 0);
    let _worker = Worker::join(&coordinator, "w0").await;
    assert_eq!(changes.next().await.unwrap().unwrap().connected_workers, 1);
    coordinator.stop.send(()).await.unwrap();
    while let Some(run) = changes.next().await {
        run.unwrap();
    }
}

#[tokio::test]
async fn the_status_command_prints_a_table_or_json() {
    let (coordinator, first, _second, generation) = pair(options(2)).await;
    first.report(generation, 0).await;
    let mut client = StatusClient::connect(&coordinator.destination).await.unwrap();
    when(&mut client, |run| run.step == Step(1)).await;

    let text = ask(&["status", "--addr", &coordinator.uri]).await.unwrap();
    assert!(text.contains("training: step 1 of 20, 2 workers, generation 1"), "{text}");
    assert!(text.contains("SLOT  RANK"), "{text}");

    let text = ask(&["status", "--json", "--addr", &coordinator.uri]).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["run"]["phase"], "running");
    assert_eq!(json["workers"][0]["worker"], "w0");
}

#[tokio::test]
async fn metrics_are_scraped_by_name() {
    let (coordinator, first, _second, generation) = pair(options(2)).await;
    first.report(generation, 0).await;
    let mut client = StatusClient::connect(&coordinator.destination).await.unwrap();
    when(&mut client, |run| run.step == Step(1)).await;
    let page = http_get(coordinator.metrics, "/metrics").await;
    for line in [
        "lockstep_step 1.0",
        "lockstep_world_size 2.0",
        "lockstep_generation 1.0",
        "lockstep_loss 3.25",
        "lockstep_workers_connected 2.0",
        "lockstep_skipped_steps_total 0",
        "lockstep_replaced_samples_total 0",
        "lockstep_probe_accuracy 0.5",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    for name in ["z_std", "images_per_second", "learning_rate", "decay"] {
        assert!(page.contains(&format!("# HELP lockstep_{name} ")), "{name} is not in\n{page}");
    }
    assert!(!page.contains("knn"), "not measured, so not shown\n{page}");
    assert!(http_get(coordinator.metrics, "/healthz").await.ends_with("ok\n"));
}

#[tokio::test]
async fn health_is_serving() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    let coordinator = Coordinator::start(options(1)).await;
    let channel = Endpoint::from_shared(coordinator.uri).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    for service in ["", "lockstep.v1.Session", "lockstep.v1.Status", "lockstep.v1.Operator"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "`{service}`");
    }
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let coordinator = Coordinator::start(options(1)).await;
    let channel = Endpoint::from_shared(coordinator.uri).unwrap().connect().await.unwrap();
    let expected = ["grpc.health.v1.Health", "lockstep.v1.Session", "lockstep.v1.Status"];

    macro_rules! listed {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = ServerReflectionClient::new(channel.clone());
            let answers = client.server_reflection_info(tokio_stream::once(request)).await;
            let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("{answer:?}")
            };
            list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
        }};
    }
    for listed in [listed!(v1), listed!(v1alpha)] {
        for name in expected {
            assert!(listed.iter().any(|found| found == name), "{name} is not in {listed:?}");
        }
    }
}

/// The run, once it is as wanted.
async fn when(client: &mut StatusClient, wanted: impl Fn(&RunStatus) -> bool) -> RunStatus {
    let mut changes = client.watch_run(std::time::Duration::from_millis(1)).await.unwrap();
    let seen = async {
        loop {
            let run = changes.next().await.unwrap().unwrap();
            if wanted(&run) {
                return run;
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("it comes in time")
}
