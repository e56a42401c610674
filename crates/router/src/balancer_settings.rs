//! What the balancer goes by, read and changed.
//!
//! Called by `wire` for whoever administers the cluster. Always holds: what is set is an entry of the catalog.

use base::Result;
use catalog::{BalancerSettings, Command};

use crate::Router;

impl Router {
    /// What the balancer goes by, as of now.
    pub async fn balancer_settings(&self) -> Result<BalancerSettings> {
        Ok(self.catalog_now().await?.cluster().balancer)
    }

    /// Switches the balancer on or off.
    pub async fn set_balancer(&self, enabled: bool) -> Result<()> {
        self.change_catalog(Command::SetBalancer { enabled }).await?;
        self.unreconciled.notify_one();
        Ok(())
    }

    /// Changes what the balancer goes by. Fails with `BadValue` (2) on a number that makes no sense.
    pub async fn change_balancer_settings(&self, settings: BalancerSettings) -> Result<()> {
        self.change_catalog(Command::ChangeBalancerSettings { settings }).await.map(drop)
    }
}
