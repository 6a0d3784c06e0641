//! A client that knows nothing of Lockstep: it learns everything from reflection, as grpcurl does.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::collections::HashSet;

use lockstep_tests::{Process, Scene};
use prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The two versions of the reflection service have the same messages under other names.
macro_rules! reflection {
    ($version:ident) => {
        mod $version {
            use tonic::transport::Channel;
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            pub(super) async fn services(channel: Channel) -> Vec<String> {
                let answer = ask(channel, MessageRequest::ListServices(String::new())).await;
                let MessageResponse::ListServicesResponse(list) = answer else {
                    panic!("not a list: {answer:?}")
                };
                list.service.into_iter().map(|service| service.name).collect()
            }

            /// The file that defines `symbol`, perhaps with files that it imports.
            pub(super) async fn defining(channel: Channel, symbol: &str) -> Vec<Vec<u8>> {
                files(ask(channel, MessageRequest::FileContainingSymbol(symbol.into())).await)
            }

            pub(super) async fn named(channel: Channel, file: &str) -> Vec<Vec<u8>> {
                files(ask(channel, MessageRequest::FileByFilename(file.into())).await)
            }

            fn files(answer: MessageResponse) -> Vec<Vec<u8>> {
                let MessageResponse::FileDescriptorResponse(files) = answer else {
                    panic!("no descriptors: {answer:?}")
                };
                files.file_descriptor_proto
            }

            async fn ask(channel: Channel, question: MessageRequest) -> MessageResponse {
                let request = ServerReflectionRequest {
                    host: String::new(),
                    message_request: Some(question),
                };
                let mut client = ServerReflectionClient::new(channel);
                let answers = client.server_reflection_info(tokio_stream::once(request)).await;
                let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
                answer.message_response.unwrap()
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);

/// Learns the service from reflection of one version, and asks it for the run.
macro_rules! asked_for_the_run {
    ($version:ident) => {{
        let waiting = waiting_coordinator();
        let channel = connect(&waiting.address).await;
        let services = $version::services(channel.clone()).await;
        assert!(services.iter().any(|name| name == "lockstep.v1.Status"), "{services:?}");

        let mut found = $version::defining(channel.clone(), "lockstep.v1.Status").await;
        let (mut files, mut seen) = (Vec::new(), HashSet::new());
        while let Some(bytes) = found.pop() {
            let file = FileDescriptorProto::decode(&*bytes).unwrap();
            if !seen.insert(file.name().to_owned()) {
                continue;
            }
            for import in &file.dependency {
                found.extend($version::named(channel.clone(), import).await);
            }
            files.push(file);
        }
        get_run(channel, files).await
    }};
}

#[tokio::test]
async fn a_client_that_only_knows_reflection_lists_and_calls_the_status_service() {
    assert_waits_for_two(&asked_for_the_run!(v1));
}

#[tokio::test]
async fn so_does_a_client_that_only_knows_the_older_reflection() {
    assert_waits_for_two(&asked_for_the_run!(v1alpha));
}

#[tokio::test]
async fn the_health_service_says_that_it_serves() {
    let waiting = waiting_coordinator();
    let mut client = HealthClient::new(connect(&waiting.address).await);
    let request = HealthCheckRequest { service: "lockstep.v1.Status".into() };
    let answer = client.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
}

#[test]
fn the_status_command_asks_a_running_coordinator() {
    let waiting = waiting_coordinator();
    let arguments = ["status", "--json", "--addr", &waiting.address];
    let ended = waiting.scene.coordinator("status", &arguments).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let status: Value = serde_json::from_str(&ended.said).unwrap();
    assert_eq!(status["run"]["run_id"], "tiny");
    assert_eq!(status["run"]["expected_workers"], 2);
    assert_eq!(status["workers"], serde_json::json!([]));
}

/// A coordinator of two workers that don't come.
struct Waiting {
    address: String,
    /// Ends when this is dropped, before its folder goes.
    _coordinator: Process,
    scene: Scene,
}

fn waiting_coordinator() -> Waiting {
    let scene = Scene::empty();
    let (coordinator, address) = scene.serve("c", 2, &[]);
    Waiting { address, _coordinator: coordinator, scene }
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}

/// Calls the first method by what the descriptors say of it.
async fn get_run(channel: Channel, files: Vec<FileDescriptorProto>) -> DynamicMessage {
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_protos(files).unwrap();
    let service = pool.get_service_by_name("lockstep.v1.Status").unwrap();
    let method = service.methods().find(|method| method.name() == "GetRun").unwrap();
    let path = format!("/{}/{}", service.full_name(), method.name());
    let request = Request::new(DynamicMessage::new(method.input()));

    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let answer = client.unary(request, path.parse().unwrap(), Dynamic(method.output())).await;
    answer.unwrap().into_inner()
}

fn assert_waits_for_two(run: &DynamicMessage) {
    let text = |field| run.get_field_by_name(field).unwrap().as_str().unwrap().to_owned();
    let number = |field| run.get_field_by_name(field).unwrap().as_u32().unwrap();
    assert_eq!(text("run_id"), "tiny");
    assert!(text("summary").contains("waiting for workers"), "{run:?}");
    assert_eq!((number("connected_workers"), number("expected_workers")), (0, 2));
}

/// Messages by descriptor; holds that of the answer.
#[derive(Debug, Clone)]
struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let decoded = DynamicMessage::decode(self.0.clone(), buffer);
        decoded.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
