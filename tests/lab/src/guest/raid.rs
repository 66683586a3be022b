// SPDX-License-Identifier: GPL-2.0-or-later
//! Arrays of two disks of memory, set up through sysfs (Documentation/admin-guide/md.rst).

use std::io;
use std::path::Path;
use std::time::Duration;

use super::exercise::unhindered;

/// An array, taken apart when it is dropped.
pub struct Array(String);

impl Array {
    /// Starts one of that name from these disks, with settings of its level in their order.
    pub fn start(name: &str, settings: &[(&str, &str)], disks: [&str; 2]) -> io::Result<Array> {
        std::fs::write("/sys/module/md_mod/parameters/new_array", name)?;
        wait(&format!("/sys/block/{name}/md"));
        let array = Array(name.to_owned());
        array.set("metadata_version", "none")?;
        for (file, value) in settings {
            array.set(file, value)?;
        }
        for (slot, disk) in disks.iter().enumerate() {
            let number = std::fs::read_to_string(format!("/sys/block/{disk}/dev"))?;
            array.set("new_dev", number.trim())?;
            array.set(&format!("dev-{disk}/slot"), &slot.to_string())?;
        }
        array.set("component_size", "1024")?;
        array.set("resync_start", "none")?;
        array.set("array_state", "active")?;
        Ok(array)
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        let path = format!("/sys/block/{}/md/{file}", self.0);
        std::fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
    }

    /// Its device.
    #[must_use]
    pub fn device(&self) -> String {
        let path = format!("/dev/{}", self.0);
        wait(&path);
        path
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // One that stays is seen when its disks are wanted again.
        let _ = unhindered(|| self.set("array_state", "clear"));
    }
}

/// Waits a second for a path.
fn wait(path: &str) {
    for _ in 0..50 {
        if Path::new(path).exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
