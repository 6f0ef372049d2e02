//! The HdaCtrl actor: an hda model on a bus
