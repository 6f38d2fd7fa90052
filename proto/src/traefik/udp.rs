//! UDP: routers and services. A UDP router takes all that comes in at its entry points.

use std::collections::BTreeMap;

use super::{
    Invalid, Kind, Reference, Rules,
    http::{Weight, check_weights, references},
    invalid::{exactly_one, require},
    options::{Field, options},
    tcp::check_address,
};

options! {
    /// The `udp` section.
    pub struct Udp {
        pub routers: BTreeMap<String, Router>,
        pub services: BTreeMap<String, Service>,
    }

    pub struct Router {
        pub entry_points: Vec<String>,
        pub service: String,
    }

    /// Of exactly one kind.
    pub struct Service {
        pub load_balancer: Option<LoadBalancer>,
        pub weighted: Option<Weighted>,
    }

    pub struct LoadBalancer {
        pub servers: Vec<Server>,
    }

    pub struct Server {
        /// Host and port.
        pub address: String,
    }

    pub struct Weighted {
        pub services: Vec<Weight>,
    }
}

impl Rules for Router {
    fn check(&self) -> Result<(), Invalid> {
        require("service", &self.service)
    }

    fn references(&self) -> Vec<Reference> {
        Reference::one(Kind::UdpService, "service", &self.service).into_iter().collect()
    }
}

impl Rules for Service {
    fn check(&self) -> Result<(), Invalid> {
        let kinds = [("loadBalancer", !self.load_balancer.absent()), ("weighted", !self.weighted.absent())];
        exactly_one("a UDP service", &kinds)?;
        for (i, server) in self.load_balancer.iter().flat_map(|balancer| &balancer.servers).enumerate() {
            check_address(&format!("loadBalancer.servers[{i}].address"), &server.address)?;
        }
        self.weighted.as_ref().map_or(Ok(()), |weighted| check_weights("weighted.services", &weighted.services))
    }

    fn references(&self) -> Vec<Reference> {
        let weights = self.weighted.as_ref().map_or(&[][..], |weighted| &weighted.services);
        references(Kind::UdpService, "weighted.services", weights)
    }
}
