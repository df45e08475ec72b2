//! The Hugging Face hub, or a mirror of it: which files a repository has, how large they are, and their hashes.

use inkling_engine::checkpoint::{
    files,
    hub::{CONVERSIONS, Discussions, is_at_top, is_id},
};
use serde::Deserialize;
use web_sys::AbortSignal;

use super::{
    fetch,
    source::{Place, Source, SourceFile},
};
use crate::error::{Failure, Kind, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// A repository of models.
pub(crate) struct Repository {
    pub(crate) id: String,
    pub(crate) revision: String,
    /// The hub's address, without a slash at its end.
    pub(crate) endpoint: String,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

/// What the hub knows of a large file.
#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

impl Repository {
    /// Checks what the caller gave: an id is `name` or `owner/name`, an endpoint an address.
    pub(crate) fn new(id: String, revision: Option<String>, endpoint: Option<String>) -> Result<Repository> {
        if !is_id(&id) {
            let error = format!(
                "`{id}` is no name of a model on the hub; it should look like `openai-community/gpt2`."
            );
            return Err(Failure::new(Kind::Invalid, error));
        }
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT.into());
        let endpoint = endpoint.trim().trim_end_matches('/');
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let error = format!("`{endpoint}` is no address of a hub; it should look like `{ENDPOINT}`.");
            return Err(Failure::new(Kind::Invalid, error));
        }
        let revision = revision.unwrap_or_else(|| "main".into());
        Ok(Repository { id, revision, endpoint: endpoint.into() })
    }

    /// The files at the top of the repository. Folders hold other forms of the same model.
    ///
    /// An older repository may have no safetensors on `main`; the hub's own conversion then waits as a pull request.
    pub(crate) async fn list(&self, signal: &AbortSignal) -> Result<Source> {
        let listing = self.listing(&self.revision, signal).await?;
        let mut names: Vec<String> = listing.siblings.iter().map(|file| file.rfilename.clone()).collect();
        names.retain(|name| is_at_top(name));
        let has_torch = names.iter().any(|name| name == "pytorch_model.bin");
        if has_torch
            && files::model_files(&names).is_err()
            && let Some(converted) = self.conversion(signal).await
        {
            return Ok(self.source(converted));
        }
        Ok(self.source(listing))
    }

    async fn listing(&self, revision: &str, signal: &AbortSignal) -> Result<Listing> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}?blobs=true", self.endpoint, self.id);
        fetch::json(&url, signal).await.map_err(|failure| {
            let host = fetch::host_of(&self.endpoint);
            match failure.kind {
                // The hub does not tell a private repository from one that is not there.
                Kind::Missing => Failure::new(
                    Kind::Missing,
                    format!(
                        "{host} has no public model `{}` (revision {}); check its name.",
                        self.id, self.revision
                    ),
                )
                .for_good(),
                _ => failure,
            }
        })
    }

    async fn conversion(&self, signal: &AbortSignal) -> Option<Listing> {
        let url = format!("{}/api/models/{}/discussions?{CONVERSIONS}", self.endpoint, self.id);
        let found: Discussions = fetch::json(&url, signal).await.ok()?;
        self.listing(&found.conversion()?, signal).await.ok()
    }

    fn source(&self, listing: Listing) -> Source {
        let Listing { sha, siblings } = listing;
        let files = siblings.into_iter().filter(|file| is_at_top(&file.rfilename));
        let files = files.map(|file| SourceFile {
            content: Place::Url(format!("{}/{}/resolve/{sha}/{}", self.endpoint, self.id, file.rfilename)),
            name: file.rfilename,
            size_bytes: file.size,
            sha256: file.lfs.map(|lfs| lfs.sha256),
        });
        Source { name: self.id.clone(), files: files.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_repository_is_a_name_and_an_address() {
        let new = |id: &str, endpoint: &str| Repository::new(id.into(), None, Some(endpoint.into()));
        let found = new("openai-community/gpt2", "http://127.0.0.1:80/").unwrap();
        assert_eq!((found.revision.as_str(), found.endpoint.as_str()), ("main", "http://127.0.0.1:80"));
        for bad in ["", "/", "a/b/c", "../x", "a b", "a/..", "x?y"] {
            assert_eq!(new(bad, ENDPOINT).err().map(|failure| failure.kind), Some(Kind::Invalid), "{bad}");
        }
        assert!(new("gpt2", "javascript:alert").is_err());
    }
}
