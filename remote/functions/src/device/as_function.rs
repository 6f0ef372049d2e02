//! A device is a function: what the public types pass on.

/// Makes a public type that holds a [`Device`](crate::device::Device) a [`Function`](crate::Function).
macro_rules! as_function {
    ([$($generics:tt)*] $function:ty) => {
        impl<$($generics)*> $crate::Function for $function {
            fn id(&self) -> (u16, u16) {
                self.0.id()
            }

            fn speed(&self) -> wire::usb::Speed {
                self.0.speed()
            }

            fn profile(&self) -> wire::control::Profile {
                self.0.profile()
            }

            fn submit(&mut self, request: wire::usb::Request) {
                self.0.submit(request);
            }

            fn cancel(&mut self, endpoint: wire::usb::Endpoint, through: wire::usb::RequestId) {
                self.0.cancel(endpoint, through);
            }

            fn streams(
                &mut self,
                id: wire::usb::RequestId,
                endpoints: &[wire::usb::Endpoint],
                count: u16,
            ) {
                self.0.streams(id, endpoints, count);
            }

            fn reset(&mut self, through: wire::usb::RequestId) -> Result<(), wire::usb::Failure> {
                self.0.reset(through)
            }

            fn replug(&mut self) {
                self.0.replug();
            }

            fn poll(
                &mut self,
                now: core::time::Duration,
                lane: wire::Lane,
            ) -> Option<wire::usb::Completion> {
                self.0.poll(now, lane)
            }

            fn deadline(&self) -> Option<core::time::Duration> {
                self.0.deadline()
            }
        }
    };
}

pub(crate) use as_function;
