//! What every PCI function of Farbus is made of
