//! USB devices made of software by the desk's own kernel, plugged into its dummy_hcd.

use std::fmt::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::{Desk, Function, KeyReport};

/// Where gadgets are made.
const ROOT: &str = "/sys/kernel/config/usb_gadget";
/// How long the desk's kernel may take to find a device, and its driver to be done with it.
const FOUND_WITHIN: Duration = Duration::from_secs(120);

/// The most a gadget's connection carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speed {
    /// USB 1.1, 12 Mbit/s.
    Full,
    /// USB 2, 480 Mbit/s.
    High,
    /// USB 3, 5 Gbit/s.
    #[default]
    Super,
}

impl fmt::Display for Speed {
    /// As the kernel calls it in configfs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full-speed",
            Self::High => "high-speed",
            Self::Super => "super-speed",
        })
    }
}

/// A gadget to be made. Its name is also its serial number.
#[derive(Debug)]
#[must_use = "a gadget does not exist before it is made or plugged in"]
pub struct GadgetBuilder<'desk> {
    desk: &'desk Desk,
    name: String,
    speed: Speed,
    ids: Option<(u16, u16)>,
    functions: Vec<Function>,
}

/// A gadget, plugged in or not. It stays as it is when this is dropped.
#[derive(Debug)]
pub struct Gadget<'desk> {
    desk: &'desk Desk,
    name: String,
    id: String,
    /// Its port: the name of its device controller.
    udc: String,
}

impl Desk {
    /// A gadget to be made. Its name, of letters, digits and hyphens, is its serial number.
    pub fn gadget(&self, name: &str) -> GadgetBuilder<'_> {
        GadgetBuilder {
            desk: self,
            name: name.to_owned(),
            speed: Speed::default(),
            ids: None,
            functions: Vec::new(),
        }
    }
}

impl<'desk> GadgetBuilder<'desk> {
    /// Its speed; [`Speed::Super`] unless told otherwise.
    pub fn speed(self, speed: Speed) -> Self {
        Self { speed, ..self }
    }

    /// Its vendor and product; those by which the kernel's own gadget of the first function is known unless told
    /// otherwise.
    pub fn ids(self, vendor: u16, product: u16) -> Self {
        Self { ids: Some((vendor, product)), ..self }
    }

    /// A function; the gadget has as many as are named.
    pub fn function(mut self, function: Function) -> Self {
        self.functions.push(function);
        self
    }

    /// Makes it, without plugging it in.
    ///
    /// # Errors
    /// If it has no function, all ports are taken, or the desk's kernel refuses.
    pub async fn make(self) -> Result<Gadget<'desk>> {
        let (vendor, product) = self.check()?;
        let port = self.desk.ports.lock().await.next();
        let port =
            port.ok_or_else(|| anyhow!("the desk has no gadget port left: ask for more when it is built"))?;
        let script = self.script((vendor, product))?;
        let made = self.desk.run(&script).await?.success();
        made.with_context(|| format!("making the gadget {}", self.name))?;
        let id = format!("{vendor:04x}:{product:04x}");
        Ok(Gadget { desk: self.desk, name: self.name, id, udc: format!("dummy_udc.{port}") })
    }

    /// Makes it, plugs it in, and waits until the desk's kernel has configured it.
    ///
    /// # Errors
    /// As [`GadgetBuilder::make`] and [`Gadget::plug`].
    pub async fn plug(self) -> Result<Gadget<'desk>> {
        let gadget = self.make().await?;
        gadget.plug().await?;
        Ok(gadget)
    }

    fn check(&self) -> Result<(u16, u16)> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
        ensure!(
            !self.name.is_empty() && self.name.chars().all(word),
            "{:?} is no name for a gadget",
            self.name
        );
        let first =
            self.functions.first().ok_or_else(|| anyhow!("the gadget {} has no function", self.name))?;
        Ok(self.ids.unwrap_or_else(|| first.ids()))
    }

    /// The shell script that makes it.
    fn script(&self, (vendor, product): (u16, u16)) -> Result<String> {
        let mut script = format!("set -e\nmkdir {ROOT}/{0}\ncd {ROOT}/{0}\n", self.name);
        script.push_str("mkdir -p strings/0x409 configs/c.1\n");
        let values = [
            ("idVendor", format!("0x{vendor:04x}")),
            ("idProduct", format!("0x{product:04x}")),
            ("max_speed", self.speed.to_string()),
            ("strings/0x409/manufacturer", "Farbus lab".to_owned()),
            ("strings/0x409/product", "gadget".to_owned()),
            ("strings/0x409/serialnumber", self.name.clone()),
        ];
        for (path, value) in values {
            let _ = writeln!(script, "printf '{value}' > {path}");
        }
        for (number, function) in self.functions.iter().enumerate() {
            let folder = format!("functions/{}.{}-{number}", function.kind(), self.name);
            let _ = writeln!(script, "mkdir {folder}");
            for (path, value) in function.attributes()? {
                let _ = writeln!(script, "printf '{value}' > {folder}/{path}");
            }
            let _ = writeln!(script, "ln -s {folder} configs/c.1");
        }
        Ok(script)
    }
}

impl Gadget<'_> {
    /// Vendor and product, as `lsusb` and `--usb` have them.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Plugs it in and waits until the desk's kernel has configured it.
    ///
    /// # Errors
    /// If it is plugged in already, or the kernel does not find it in time.
    pub async fn plug(&self) -> Result<()> {
        let plug = format!("echo {} > {ROOT}/{}/UDC", self.udc, self.name);
        let configured = "d=$(dirname \"$f\") && grep -q . $d/bConfigurationValue";
        self.until(&plug, configured).await.with_context(|| format!("plugging in the gadget {}", self.name))
    }

    /// Pulls it out and waits until the desk's kernel has noticed.
    ///
    /// # Errors
    /// If it is not plugged in, or the kernel does not notice in time.
    pub async fn unplug(&self) -> Result<()> {
        let unplug = format!("echo > {ROOT}/{}/UDC", self.name);
        self.until(&unplug, "[ -z \"$f\" ]")
            .await
            .with_context(|| format!("unplugging the gadget {}", self.name))
    }

    /// Runs a command, then waits for a condition on `$f`, the file in sysfs that holds this device's serial number.
    async fn until(&self, command: &str, condition: &str) -> Result<()> {
        let find = format!("f=$(grep -lx {} /sys/bus/usb/devices/*/serial 2>/dev/null)", self.name);
        // No udev runs here that would tell.
        let wait = format!("until {find}; {condition} 2>/dev/null; do usleep 10000; done");
        let command = self.desk.command(&format!("{command} && {wait}")).timeout(FOUND_WITHIN);
        command.run().await?.success().map(drop)
    }

    /// Where it is plugged in, as the desk's kernel, `lsusb -t` and `--usb` name it: `3-1`.
    ///
    /// # Errors
    /// If it is not plugged in.
    pub async fn location(&self) -> Result<String> {
        let find = format!("basename $(dirname $(grep -lx {} /sys/bus/usb/devices/*/serial))", self.name);
        Ok(self.desk.run(&find).await?.success()?.stdout.trim().to_owned())
    }

    /// The speed it runs at: `high-speed`, `super-speed`.
    ///
    /// # Errors
    /// If the desk does not answer.
    pub async fn current_speed(&self) -> Result<String> {
        let speed = self.desk.file(&format!("/sys/class/udc/{}/current_speed", self.udc)).await?;
        Ok(String::from_utf8_lossy(&speed).trim().to_owned())
    }

    /// Has its [`Function::Keyboard`] say these, one after the other, each when the one before has been fetched: some
    /// 1,500 a second. A program that reads them must be as fast: else the kernel drops events and says so (SYN_DROPPED).
    ///
    /// # Errors
    /// If it is no keyboard, or nobody fetches them in time: a hundredth of a second for each, and some patience.
    pub async fn press(&self, reports: &[KeyReport]) -> Result<()> {
        let (size, file) = (size_of::<KeyReport>(), format!("/tmp/{}.reports", self.name));
        self.desk.put(reports.concat(), &file).await?;
        let find = format!(
            "sed -n 's/^DEVNAME=//p' /sys/dev/char/$(cat {ROOT}/{}/functions/hid.*/dev)/uevent",
            self.name
        );
        let limit = FOUND_WITHIN + Duration::from_millis(10) * u32::try_from(reports.len())?;
        let write = format!("dd if={file} of=/dev/$({find}) bs={size} 2>/dev/null");
        let write = self.desk.command(&write).timeout(limit).run().await;
        write
            .and_then(|output| output.success())
            .map(drop)
            .with_context(|| format!("typing on {}", self.name))
    }
}
