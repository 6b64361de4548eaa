// SPDX-License-Identifier: Apache-2.0

extension DomainPath {
  /// Below this suffix, which is reserved for private use and never delegated in the public DNS.
  package static let dnsSuffix = "blocktree.internal"

  /// Authorities are at most so deep, since the DNS names of what lies deeper no longer nest (see `dnsName`).
  package static let authorityDepthMax = 9

  /// The name under which ordinary TLS stacks check this place's certificate.
  ///
  /// `/a/b` is `h(b).h(a).<domain id>.blocktree.internal`, where h is the first 10 bytes of the SHA-256 of
  /// `blocktree/dns/v1`, the domain id, and a slash and the component, in base32: 16 characters. So the name of a
  /// directory is a suffix of the names of all that is below it, and a DNS name constraint on it covers just these.
  ///
  /// A DNS name has at most 253 characters, which leaves room for ten such labels (241 characters). The first nine
  /// components have a label each; all from the tenth on share the last one (the hash goes over all of them, each with
  /// its slash). Names at any depth therefore stay below the names of directories up to depth nine, which is as deep as
  /// an authority may be.
  ///
  /// The name is never parsed or trusted by our own verifier beyond being the right one for the path in the URI.
  package var dnsName: String {
    let components = self.path.components
    var labels: [String] = []
    for component in components.prefix(Self.authorityDepthMax) {
      labels.append(self.label(for: [component]))
    }
    if components.count > Self.authorityDepthMax {
      labels.append(self.label(for: components.dropFirst(Self.authorityDepthMax)))
    }
    return (labels.reversed() + [self.domain.description, Self.dnsSuffix]).joined(separator: ".")
  }

  private func label(for components: some Sequence<PathComponent>) -> String {
    var input = Array("blocktree/dns/v1".utf8)
    input.append(contentsOf: self.domain.description.utf8)
    for component in components {
      input.append(UInt8(ascii: "/"))
      input.append(contentsOf: component.bytes)
    }
    return Base32.encode(Digest32(sha256: input).bytes.prefix(10))
  }
}
