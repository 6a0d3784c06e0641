//! Named tensors in a file of the safetensors format.

use std::fs;
use std::io;
use std::path::Path;

use lockstep_nn::host_bytes;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use tch::{Device, Kind, Tensor};

/// Dense tensors by name.
pub(crate) type Named = Vec<(String, Tensor)>;

/// A copy in host memory whose elements lie in the order of its shape.
pub(crate) fn owned(tensor: &Tensor) -> Tensor {
    tensor.to_device(Device::Cpu).contiguous().copy()
}

/// The bytes of a file with these tensors, which must be dense and on the host.
pub(crate) fn serialize<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Vec<u8>, SafeTensorError> {
    let mut views = Vec::new();
    for (name, tensor) in tensors {
        let shape = tensor.size().into_iter().map(|n| usize::try_from(n).expect("not negative"));
        let view = TensorView::new(dtype(tensor.kind()), shape.collect(), host_bytes(tensor))?;
        views.push((name, view));
    }
    safetensors::serialize(views, None)
}

/// Writes a file with these tensors under its final name only when it is whole.
pub(crate) fn write(path: &Path, tensors: &Named) -> io::Result<()> {
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    write_whole(path, &serialize(named).map_err(io::Error::other)?)
}

/// Writes a file under its final name only when it is whole.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".tmp");
    fs::write(&partial, content)?;
    fs::rename(&partial, path)
}

/// The tensors of a file, or what is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Named, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let tensor = |(name, view): (String, TensorView<'_>)| {
        let kind = kind(view.dtype())
            .ok_or_else(|| format!("`{name}` is {:?}; save it as float32", view.dtype()))?;
        let shape: Vec<i64> =
            view.shape().iter().map(|&n| i64::try_from(n).expect("fits into memory")).collect();
        Ok((name, Tensor::from_data_size(view.data(), &shape, kind)))
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// Element types of what is stored.
const TYPES: [(Kind, Dtype); 3] =
    [(Kind::Float, Dtype::F32), (Kind::Double, Dtype::F64), (Kind::Int64, Dtype::I64)];

fn kind(dtype: Dtype) -> Option<Kind> {
    TYPES.iter().find(|(_, other)| *other == dtype).map(|(kind, _)| *kind)
}

fn dtype(kind: Kind) -> Dtype {
    let found = TYPES.iter().find(|(other, _)| *other == kind);
    found.expect("no state is kept in another type").1
}
