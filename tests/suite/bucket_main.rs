//! rg-bucket against real servers: SeaweedFS, which has everything, and the gateway of JuiceFS,
//! which is MinIO's front end with an old server's refusals.

#[path = "bucket_answers.rs"]
mod answers;
#[path = "bucket_list.rs"]
mod list;
#[path = "bucket_mirror.rs"]
mod mirror;
#[path = "bucket_objects.rs"]
mod objects;
#[path = "bucket_plan.rs"]
mod plan;
#[path = "bucket_servers.rs"]
mod servers;
#[path = "bucket_site.rs"]
mod site;
#[path = "bucket_stores.rs"]
mod stores;
