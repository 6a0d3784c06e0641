//! The model: online and target network, predictor, probe, and the state that training moves.

use lockstep_collective::bucket::Plan;
use lockstep_collective::{CollectiveError, Rank};
use tch::{Device, Kind, Tensor};
use xxhash_rust::xxh3::Xxh3;

use crate::gradients::Gradients;
use crate::head::{self, Head};
use crate::init::{self, TargetInit};
use crate::layout::Layout;
use crate::loss;
use crate::pass::{Backward, BatchStatistics, Forward, Grouping, Mode, Network, VIEWS, Weights};
use crate::probe::{Found, Probe};
use crate::recording::Recording;
use crate::resnet::{self, ResNet};
use crate::spec::ModelSpec;
use crate::store::{Running, Store, signed};
use crate::talk::{Communicators, Talk};
use crate::tensor;
use crate::views::{MicroBatch, Turn};

/// Figures of one step over the whole global batch, alike on all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// L, 0 to 8.
    pub loss: f64,
    /// Spread of the L2-normalized projections; see [`crate::loss`].
    pub z_std: f64,
    /// Cross-entropy and accuracy of the online probe.
    pub probe: Option<(f64, f64)>,
    /// Some rank wants to stop behind this step.
    pub stop: bool,
}

/// What a forward pass shows.
pub(crate) struct Seen {
    pub(crate) predictions: Tensor,
    pub(crate) target_projections: Tensor,
    projections: Tensor,
    probe: Option<(Found, Tensor)>,
}

/// What backward needs.
pub(crate) struct Tape {
    turn: Turn,
    grouping: Grouping,
    encoder: resnet::Saved,
    projector: head::Saved,
    predictor: head::Saved,
    /// Representation of view 1, for the probe.
    representation_bf: Tensor,
}

/// The model and its training state.
#[derive(Debug)]
pub struct Byol {
    spec: ModelSpec,
    layout: Layout,
    encoder: ResNet,
    projector: Head,
    predictor: Head,
    probe: Option<Probe>,
    /// θ, and the probe's weights.
    online: Store,
    /// ξ: a prefix of the online layout.
    target: Store,
    momentum: Store,
    gradients: Store,
    /// The gradients as they travel, where that is as bf16.
    wire: Option<Tensor>,
    /// θ and ξ in the type that is computed in, where that is another one.
    working: Option<[Store; 2]>,
    plan: Plan,
    running: [Running; 2],
    /// Running averages as they will be once the step in flight, so far, is applied.
    next_running: Option<[Running; 2]>,
    /// Batch norm's sums on their way, where the engine runs on a device.
    message: Option<Tensor>,
    /// Of the step in flight, if it was asked for.
    pub(crate) recording: Option<Recording>,
}

/// Numbers at the head of the tail, before the sums of the spread: loss, stop, probe loss, images the probe got right.
const TAIL_HEAD: usize = 4;

impl Byol {
    /// A model with initial weights drawn from `seed`.
    ///
    /// # Panics
    ///
    /// If a size of the spec is negative.
    pub fn new(spec: ModelSpec, seed: u64) -> Self {
        let mut layout = Layout::new(spec.bn_eps);
        let encoder = ResNet::new(&mut layout, &spec.encoder);
        let features = spec.encoder.features();
        let sizes = [features, spec.projector_hidden, spec.projection_dim];
        let projector = Head::new(&mut layout, "projector", sizes);
        let (target_params, target_len) = (layout.params().len(), layout.len());
        let sizes = [spec.projection_dim, spec.predictor_hidden, spec.projection_dim];
        let predictor = Head::new(&mut layout, "predictor", sizes);
        let probe = spec.classes.map(|classes| Probe::new(&mut layout, features, classes));

        let tail = TAIL_HEAD + 2 * usize::try_from(spec.projection_dim).expect("positive");
        let lengths: Vec<usize> = layout.strides().into_iter().chain([tail]).collect();
        let store = |params: usize, len: usize| {
            Store::zeros(&layout.params()[..params], len, spec.kind, spec.device)
        };
        let all = layout.params().len();
        let (online, target) = (store(all, layout.len()), store(target_params, target_len));
        let working = (spec.compute != spec.kind)
            .then(|| [&online, &target].map(|s| s.in_kind(layout.params(), spec.compute)));
        let mut model = Self {
            plan: Plan::new(&lengths, spec.bucket_elements),
            online,
            target,
            working,
            momentum: store(all, layout.len()),
            gradients: store(all, layout.len() + tail),
            wire: spec
                .bf16_gradients
                .then(|| Tensor::zeros([signed(layout.len())], (Kind::BFloat16, spec.device))),
            running: [(); 2].map(|()| Running::new(&layout, spec.device)),
            next_running: None,
            message: Talk::buffer(&layout, 2, spec.device),
            recording: None,
            spec,
            layout,
            encoder,
            projector,
            predictor,
            probe,
        };
        model.draw_weights(seed);
        model
    }

    fn draw_weights(&mut self, seed: u64) {
        for (index, param) in self.layout.params().iter().enumerate() {
            self.online.fill(param, &init::values(param, index, seed, self.spec.init));
        }
        let len = self.target.flat().numel();
        match self.spec.target_init {
            TargetInit::Copy => self.target.flat_mut().copy_(&self.online.stretch(0, len)),
            TargetInit::Independent => {
                let params = self.layout.params().iter().take_while(|param| param.offset < len);
                for (index, param) in (init::TARGET..).zip(params) {
                    self.target.fill(param, &init::values(param, index, seed, self.spec.init));
                }
            }
        }
    }

    /// What the model was made from.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Names, shapes and places of all parameters and running statistics.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn global_batch(&self) -> f64 {
        f64::from(self.spec.global_batch)
    }

    /// Brings the working copies up to the masters, if there are any.
    fn cast_weights(&mut self) {
        let masters = [&self.online, &self.target];
        for (working, master) in self.working.iter_mut().flatten().zip(masters) {
            working.flat_mut().copy_(master.flat());
        }
    }

    /// Walks both networks over both views in one wave.
    pub(crate) fn forward(
        &mut self,
        part: &MicroBatch,
        comm: &mut Communicators,
    ) -> Result<(Seen, Tape), CollectiveError> {
        let _span = tracing::info_span!("forward").entered();
        if part.turn.first {
            self.cast_weights();
        }
        let [online, target] = working(self.working.as_ref());
        let next = self.next_running.take().filter(|_| !part.turn.first);
        let next = next.unwrap_or_else(|| self.running.clone()).into();
        let rows = part.images_vbchw.size()[0] / signed(VIEWS);
        let grouping = Grouping::new(&self.spec, rows);
        let talk = Talk::new(comm.statistics.as_mut(), self.message.as_mut());
        let mut pass = Forward {
            networks: vec![
                Network { weights: Weights::new(&self.online, online), running: &self.running[0] },
                Network { weights: Weights::new(&self.target, target), running: &self.running[1] },
            ],
            mode: Mode::Batch(BatchStatistics::new(talk, grouping, next, self.spec.bn_decay)),
            recompute: self.spec.recompute,
        };
        let images = [0, 1].map(|_| part.images_vbchw.shallow_clone());
        let (representations, encoder) = self.encoder.forward(&mut pass, &images)?;
        let (projections, projector) = self.projector.forward(&mut pass, &representations)?;
        let (predictions, predictor) = self.predictor.forward(&mut pass, &projections[..1])?;
        let Mode::Batch(batch) = pass.mode else { unreachable!("made above") };
        self.next_running = Some(batch.finish()?.try_into().expect("one per network"));

        let exact = |x: &Tensor| x.to_kind(self.spec.kind);
        let representation_bf = exact(&representations[0].narrow(0, 0, rows));
        let probe = self.probe.as_ref().zip(part.labels_b.as_ref()).map(|(probe, labels)| {
            probe.look(&self.online, &representation_bf, labels, self.global_batch())
        });
        let seen = Seen {
            predictions: exact(&predictions[0]),
            target_projections: exact(&projections[1]),
            projections: exact(&projections[0]),
            probe,
        };
        let turn = part.turn;
        Ok((seen, Tape { turn, grouping, encoder, projector, predictor, representation_bf }))
    }

    /// Adds the gradient of the loss to that of the micro-batches before, and the figures of the report to
    /// theirs; behind the last one, both are summed over all ranks.
    pub(crate) fn backward(
        &mut self,
        tape: Tape,
        seen: &Seen,
        (loss, wants_stop): (&Tensor, bool),
        d_predictions: &Tensor,
        comm: &mut Communicators,
    ) -> Result<(), CollectiveError> {
        let span = tracing::info_span!("backward").entered();
        let tail = self.tail(seen, loss, wants_stop);
        let mut pass = Backward {
            weights: Weights::new(&self.online, working(self.working.as_ref())[0]),
            grouping: tape.grouping,
            sink: Gradients::new(
                (&mut self.gradients, self.wire.as_mut()),
                &self.plan,
                comm.gradients.as_mut(),
                tape.turn,
            ),
            talk: Talk::new(comm.statistics.as_mut(), self.message.as_mut()),
        };
        pass.sink.put_tail(&tail)?;
        if let (Some(probe), Some((_, gradient))) = (&self.probe, &seen.probe) {
            probe.backward(&mut pass, &tape.representation_bf, gradient)?;
        }
        let d_predictions = d_predictions.to_kind(self.spec.compute);
        let d_projections = self.predictor.backward(&mut pass, &tape.predictor, &d_predictions)?;
        let d_representations =
            self.projector.backward(&mut pass, &tape.projector, &d_projections)?;
        self.encoder.backward(&mut pass, tape.encoder, &d_representations)?;
        drop(span);
        pass.sink.finish()?;
        pass.talk.settle()?;
        if let Some(recording) = &mut self.recording {
            recording.add(seen, loss.double_value(&[]));
        }
        Ok(())
    }

    /// Whether the summed gradients and the loss are all numbers. Every rank sees the same sums, so all
    /// ranks answer alike.
    pub(crate) fn gradients_are_finite(&self) -> bool {
        self.gradients.flat().sum(Kind::Double).double_value(&[]).is_finite()
    }

    /// Gradients of the last step in the order of the flat buffers, summed over all ranks: means over N
    /// samples, before weight decay and LARS.
    pub fn gradients(&self) -> &Tensor {
        self.gradients.flat()
    }

    /// Moves θ by the gradients, and the running averages by what this step saw.
    pub(crate) fn update_online(&mut self, learning_rate: f64) {
        let _span = tracing::info_span!("optimizer").entered();
        let Self { spec, layout, online, gradients, momentum, .. } = self;
        spec.optimizer.apply(learning_rate, layout.params(), online, gradients, momentum);
        self.running = self.next_running.take().expect("an update follows a forward pass");
    }

    /// Moves the target network: ξ ← τξ + (1 − τ)θ.
    pub(crate) fn update_target(&mut self, decay: f64) {
        let _span = tracing::info_span!("ema").entered();
        let online = self.online.stretch(0, self.target.flat().numel());
        let _moved = self.target.flat_mut().lerp_(&online, 1.0 - decay);
    }

    /// This rank's and micro-batch's share of the figures that a step reports.
    fn tail(&self, seen: &Seen, loss: &Tensor, wants_stop: bool) -> Tensor {
        let [stop, zero] = [f64::from(u8::from(wants_stop)), 0.0].map(|x| loss.full_like(x));
        let (probe_loss, correct) =
            seen.probe.as_ref().map_or((&zero, &zero), |(found, _)| (&found.loss, &found.correct));
        let head: [&Tensor; TAIL_HEAD] = [loss, &stop, probe_loss, correct];
        let head = Tensor::stack(&head, 0).to_kind(self.spec.kind);
        Tensor::cat(&[head, loss::spread_sums(&seen.projections)], 0)
    }

    /// The figures of the whole step.
    pub(crate) fn report(&self) -> Report {
        let first = self.layout.len();
        let tail = self.gradients.stretch(first, self.gradients.flat().numel() - first);
        let tail: Vec<f64> = Vec::try_from(tail.to_kind(Kind::Double).to_device(Device::Cpu))
            .expect("a dense vector");
        let (head, spread) = tail.split_at(TAIL_HEAD);
        let views = f64::from(u32::try_from(VIEWS).expect("two"));
        Report {
            loss: head[0],
            stop: head[1] > 0.0,
            probe: self.probe.as_ref().map(|_| (head[2], head[3] / self.global_batch())),
            z_std: loss::spread(spread, views * self.global_batch()),
        }
    }

    /// Representation of images with the running batch-norm averages: what evaluation looks at.
    ///
    /// `pixels`: normalized, in the order N, H, W, C. Returns `[N, features]` as f32 on the host.
    ///
    /// # Panics
    ///
    /// If the pixels are not `count` square RGB images of `side`.
    pub fn represent(&self, pixels: &[f32], count: usize, side: u32) -> Vec<f32> {
        let side = i64::from(side);
        let images = Tensor::from_slice(pixels).view([signed(count), side, side, 3]);
        let images = images.permute([0, 3, 1, 2]).to_device(self.spec.device);
        let weights = Weights::new(&self.online, None);
        let network = Network { weights, running: &self.running[0] };
        let mut pass = Forward { networks: vec![network], mode: Mode::Evaluate, recompute: false };
        let (representations, _) = self
            .encoder
            .forward(&mut pass, &[images.to_kind(self.spec.kind)])
            .expect("evaluation talks to nobody");
        let flat = representations[0].to_kind(Kind::Float).to_device(Device::Cpu).view([-1]);
        Vec::try_from(flat).expect("a dense vector")
    }

    /// The whole training state but step and cursor, by name.
    pub fn state(&self) -> [(&'static str, &Tensor); 5] {
        let [online, target] = &self.running;
        [
            ("online", self.online.flat()),
            ("target", self.target.flat()),
            ("momentum", self.momentum.flat()),
            ("online_running", online.flat()),
            ("target_running", target.flat()),
        ]
    }

    /// As [`Byol::state`], to write.
    pub fn state_mut(&mut self) -> [(&'static str, &mut Tensor); 5] {
        let [online, target] = &mut self.running;
        [
            ("online", self.online.flat_mut()),
            ("target", self.target.flat_mut()),
            ("momentum", self.momentum.flat_mut()),
            ("online_running", online.flat_mut()),
            ("target_running", target.flat_mut()),
        ]
    }

    /// Gives every rank the state of `root`.
    pub fn broadcast_state(
        &mut self,
        comm: &mut Communicators,
        root: Rank,
    ) -> Result<(), CollectiveError> {
        for (_, flat) in self.state_mut() {
            let region = tensor::region(flat, 0, flat.numel());
            comm.gradients.broadcast(region, root)?;
        }
        Ok(())
    }

    /// Digest of the full training state at a step and cursor (XXH3, 64 bits).
    pub fn digest(&self, step: u64, cursor: u64) -> u64 {
        let mut hash = Xxh3::new();
        for number in [step, cursor] {
            hash.update(&number.to_le_bytes());
        }
        for (_, flat) in self.state() {
            hash.update(tensor::host_bytes(&flat.to_device(Device::Cpu)));
        }
        hash.digest()
    }
}

/// Working copies of the online and the target network, where there are any.
fn working(copies: Option<&[Store; 2]>) -> [Option<&Store>; 2] {
    copies.map_or([None, None], |copies| copies.each_ref().map(Some))
}
