//! The balancer's settings, and what it would do.
//!
//! Called by `wire`. Always holds: what is explained is planned by the same rules that the balancer acts by.

use std::collections::BTreeSet;

use base::Result;
use catalog::balance::{Observed, plan};
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

    /// What the balancer would do by what the catalog says, the most important first: a sentence for each change. Where primaries
    /// are and how large shards are is not in the catalog.
    pub async fn explain_balancer(&self) -> Result<Vec<String>> {
        let catalog = self.catalog_now().await?;
        let alive: BTreeSet<_> = catalog.nodes().filter(|node| !node.dead).map(|node| node.id).collect();
        let observed = Observed { alive, ..Observed::default() };
        Ok(plan(&catalog, &observed).into_iter().map(|proposal| proposal.reason).collect())
    }
}
