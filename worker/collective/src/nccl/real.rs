//! NVIDIA's libnccl on a machine without a GPU: `make test-nccl-real`.
//!
//! The fake library shows what we do with its answers; this shows that the answers are NCCL's, as far as they can be had
//! here: version, ids and groups work, and everything that needs a GPU is refused at once and in words.

#![expect(unsafe_code, reason = "two calls that the backend itself does not make")]

use std::ffi::c_int;
use std::time::Duration;

use super::patience::now;
use super::{Nccl, NcclCollective, NcclSpec};
use crate::{AbortHandle, CollectiveError, NcclCode, Rank, Recovery};

/// An answer "at once".
const AT_ONCE: Duration = Duration::from_secs(5);

fn spec(nccl: &Nccl, device: Option<u32>) -> NcclSpec {
    NcclSpec {
        rank: Rank(0),
        world: 1,
        generation: 1,
        id: nccl.unique_id().unwrap(),
        device,
        deadline: Duration::from_mins(1),
    }
}

fn refusal(device: Option<u32>) -> CollectiveError {
    let nccl = Nccl::load().unwrap();
    let started = now();
    let formed = NcclCollective::form(&nccl, spec(&nccl, device), AbortHandle::new());
    assert!(started.elapsed() < AT_ONCE, "after {:?}", started.elapsed());
    formed.unwrap_err()
}

#[test]
#[ignore = "needs NVIDIA's libnccl: make test-nccl-real"]
fn the_wheels_library_is_found_whole_and_of_its_version() {
    assert_eq!(Nccl::load().unwrap().version(), 22_907);
}

#[test]
#[ignore = "needs NVIDIA's libnccl: make test-nccl-real"]
fn every_id_is_another_one() {
    let nccl = Nccl::load().unwrap();
    let [one, two] = [(); 2].map(|()| nccl.unique_id().unwrap());
    assert_ne!(one, two);
    assert!(one.as_bytes().iter().any(|&byte| byte != 0));
}

#[test]
#[ignore = "needs NVIDIA's libnccl: make test-nccl-real"]
fn a_group_of_no_calls_opens_and_closes() {
    type GroupCall = unsafe extern "C" fn() -> c_int;
    let library = Nccl::load().unwrap().shared.library.opened;
    for name in ["ncclGroupStart", "ncclGroupEnd"] {
        // SAFETY: this is the type of both in NVIDIA's header.
        let call: GroupCall = unsafe { library.function(name) }.unwrap();
        // SAFETY: both take nothing, and are called in their order on one thread.
        let code = unsafe { call() };
        assert_eq!(NcclCode::decode(code, 22_907), NcclCode::Success, "{name}");
    }
}

#[test]
#[ignore = "needs NVIDIA's libnccl: make test-nccl-real"]
fn without_a_gpu_nccl_refuses_a_communicator_at_once_and_its_words_are_in_our_error() {
    let nccl = Nccl::load().unwrap();
    let id = nccl.unique_id().unwrap();
    let started = now();
    let failure = nccl.api().begin(1, Rank(0), &id).unwrap_err();
    assert!(started.elapsed() < AT_ONCE, "after {:?}", started.elapsed());
    assert_eq!(failure.code, NcclCode::UnhandledCudaError, "{failure}");
    let error = CollectiveError::Nccl { op: "forming generation 1".into(), failure };
    let text = error.to_string();
    assert!(text.contains("unhandled cuda error"), "{text}");
    assert!(text.contains("forming generation 1"), "{text}");
    assert_eq!(error.recovery(), Recovery::Restart);
}

#[test]
#[ignore = "needs NVIDIA's libnccl: make test-nccl-real"]
fn without_a_driver_a_worker_is_told_so_before_nccl_is_asked() {
    let error = refusal(Some(0));
    assert!(error.to_string().contains("found no CUDA driver"), "{error}");
    assert_eq!(error.recovery(), Recovery::Abort);
}

#[test]
#[ignore = "needs NVIDIA's libnccl: make test-nccl-real"]
fn host_memory_is_only_for_the_fake() {
    let error = refusal(None);
    assert!(error.to_string().contains("works on GPUs only"), "{error}");
}
