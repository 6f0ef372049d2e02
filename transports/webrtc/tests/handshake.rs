//! Who gets in, who does not, and what they are told.

use link::Link;

mod common;

#[tokio::test]
async fn both_ends_know_each_other_and_share_a_binding() {
    let (remote, host) = common::pair().await;
    assert_eq!(remote.binding(), host.binding());
}
