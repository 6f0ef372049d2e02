//! tmp
fn main() -> anyhow::Result<()> {
    let cache = lab::provision::Cache::open()?;
    lab::provision::everything(&cache)
}
