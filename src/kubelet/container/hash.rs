//! The hash by which a container is known to be made from another definition than the spec's.
//!
//! It stands in the annotation `io.kubernetes.container.hash` of every container and is upstream's own, so that either
//! kubelet takes over the other's containers without restarting them.

use k8s_openapi::api::core::v1::Container;

/// Hash of the container's name and image.
// upstream: kubelet/container/helpers.go HashContainer (FNV-1a 32 over a dump of the JSON of name and image)
pub fn container_hash(container: &Container) -> u64 {
    let text = |value: &str| {
        let quoted = serde_json::Value::from(value).to_string();
        quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    };
    let json = format!(
        "{{\"image\":{},\"name\":{}}}",
        text(container.image.as_deref().unwrap_or_default()),
        text(&container.name)
    );
    // The dump of a byte slice: its type, then the bytes in decimal.
    let numbers: Vec<String> = json.bytes().map(|byte| byte.to_string()).collect();
    let dump = format!("([]uint8)[{}]", numbers.join(" "));
    let hash =
        dump.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u64::from(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values printed by upstream's own `DeepHashObject`.
    #[test]
    fn hashes_are_upstreams() {
        for (name, image, want) in
            [("web", "nginx:1.27", 0x0e22_0f96), ("a", "busybox", 0x5264_866e), ("x", "<&>", 0x2cbf_24b5)]
        {
            let container =
                Container { name: name.into(), image: Some(image.into()), ..Container::default() };
            assert_eq!(container_hash(&container), want, "{name}");
        }
    }
}
