//! kNN accuracy while training: how well the representation sorts images that it was not told the
//! labels of.
//!
//! Every rank computes the representations of a part of the first images of the data set (which are in
//! random order on disk), and all ranks exchange them. Each image is then classified by the others.

use lockstep_collective::Collective;
use lockstep_data::Dataset;
use lockstep_nn::Byol;
use lockstep_proto::config::RunConfig;

use crate::ending::StepError;
use crate::eval::{Features, knn};

/// Images of one round: their representations fit into one message of the collectives.
const ROUND: u64 = 64;

/// Accuracy over `knn.samples` images; alike on all ranks.
pub(crate) fn accuracy(
    model: &Byol,
    dataset: &Dataset,
    config: &RunConfig,
    (rank, world): (u32, u32),
    comm: &mut dyn Collective,
) -> Result<f64, StepError> {
    let _span = tracing::info_span!("knn").entered();
    let samples = u64::from(config.knn.samples).min(dataset.manifest().samples());
    let mut all = Features::default();
    let per_round = ROUND * u64::from(world);
    for first in (0..samples).step_by(usize::try_from(per_round).expect("worlds are small")) {
        let mine = first + u64::from(rank) * ROUND;
        let range = mine.min(samples)..(mine + ROUND).min(samples);
        let part = Features::of_range(model, dataset, config, range)?;
        for bytes in comm.all_gather(&part.to_bytes())? {
            all.extend_from_bytes(&bytes);
        }
    }
    Ok(knn::leave_one_out(&all, config.knn.k, config.knn.temperature))
}
