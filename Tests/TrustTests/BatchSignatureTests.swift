// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Trust

@Suite("A batch signature")
struct BatchSignatureTests {
  let key = SigningKey()

  private func digests(_ count: Int, _ random: inout SeededGenerator) -> [Digest32] {
    (0..<count).map { _ in Digest32(sha256: (0..<8).map { _ in UInt8.random(in: 0...255, using: &random) }) }
  }

  @Test("verifies for each message of a batch of any size, and comes back from its bytes")
  func sizes() throws {
    var random = SeededGenerator.forTest()
    for count in Array(1...20) + (0..<8).map({ _ in Int.random(in: 21...200, using: &random) }) {
      let digests = self.digests(count, &random)
      let signatures = try key.sign(digests, purpose: .contentPart)
      #expect(signatures.count == count)
      let cache = SignatureCache()
      for (digest, signature) in zip(digests, signatures) {
        #expect(signature.verify(digest: digest, purpose: .contentPart, key: key.verifyingKey, cache: cache))
        #expect(signature.bytes.count <= BatchSignature.byteCountMax)
        let decoded = try BatchSignature(bytes: signature.bytes)
        #expect(decoded == signature)
      }
      #expect(cache.count == 1)
      // Without a cache too; one is enough, they share the ECDSA signature.
      let one = Int.random(in: 0..<count, using: &random)
      #expect(
        signatures[one].verify(digest: digests[one], purpose: .contentPart, key: key.verifyingKey, cache: nil))
    }
  }

  @Test("of no messages is none, and of very many is in several trees")
  func extremes() throws {
    #expect(try key.sign([], purpose: .receipt).isEmpty)
    var random = SeededGenerator.forTest()
    let digests = self.digests(BatchSignature.treeSizeMax + 3, &random)
    let cache = SignatureCache()
    let signatures = try key.sign(digests, purpose: .receipt, cache: cache)
    #expect(cache.count == 2)
    for index in [0, 1, 4095, 4096, 4098] {
      #expect(signatures[index].bytes.count <= BatchSignature.byteCountMax)
      #expect(signatures[index].verify(digest: digests[index], purpose: .receipt, key: key.verifyingKey, cache: nil))
    }
  }

  @Test("is refused with any bit changed, with and without a cache that knows the good one")
  func tampering() throws {
    var random = SeededGenerator.forTest()
    for count in [1, 2, 7, 64, 200] {
      let digests = self.digests(count, &random)
      let cache = SignatureCache()
      let signatures = try key.sign(digests, purpose: .linksPart, cache: cache)
      let which = Int.random(in: 0..<count, using: &random)
      let good = signatures[which].bytes
      #expect(
        signatures[which].verify(digest: digests[which], purpose: .linksPart, key: key.verifyingKey, cache: cache))
      for bit in 0..<(good.count * 8) {
        var bad = good
        bad[bit / 8] ^= 1 << UInt8(bit % 8)
        guard let signature = try? BatchSignature(bytes: bad) else { continue }
        let digest = digests[which]
        #expect(
          !signature.verify(digest: digest, purpose: .linksPart, key: key.verifyingKey, cache: cache), "bit \(bit)")
        if bit % 16 == 0 {
          #expect(
            !signature.verify(digest: digest, purpose: .linksPart, key: key.verifyingKey, cache: nil), "bit \(bit)")
        }
      }
      #expect(cache.count == 1)
    }
  }

  @Test("holds for its message, purpose and key only")
  func binding() throws {
    var random = SeededGenerator.forTest()
    let digests = self.digests(5, &random)
    let cache = SignatureCache()
    let signatures = try key.sign(digests, purpose: .contentPart, cache: cache)
    for cache in [nil, cache] {
      for purpose in SigningPurpose.allCases where purpose != .contentPart {
        #expect(!signatures[0].verify(digest: digests[0], purpose: purpose, key: key.verifyingKey, cache: cache))
      }
      let other = SigningKey().verifyingKey
      #expect(!signatures[0].verify(digest: digests[0], purpose: .contentPart, key: other, cache: cache))
      #expect(!signatures[0].verify(digest: digests[1], purpose: .contentPart, key: key.verifyingKey, cache: cache))
      // The hash of an inner node is no message.
      let node = MerkleTree.nodeHash(MerkleTree.leafHash(digests[0]), MerkleTree.leafHash(digests[1]))
      let shorter = BatchSignature(
        leafIndex: 0, treeSize: 3, path: Array(signatures[0].path.dropFirst()), signature: signatures[0].signature)
      #expect(!shorter.verify(digest: node, purpose: .contentPart, key: key.verifyingKey, cache: cache))
    }
  }

  @Test("is refused in encodings that say something twice or too much")
  func encoding() throws {
    let good = try key.sign([.zero, Digest32(sha256: [])], purpose: .envelope)[0].bytes
    #expect(throws: TrustError.malformed) { try BatchSignature(bytes: [UInt8]()) }
    #expect(throws: TrustError.unknownVersion) { try BatchSignature(bytes: [2] + good.dropFirst()) }
    #expect(throws: TrustError.malformed) { try BatchSignature(bytes: good + [0]) }
    #expect(throws: TrustError.malformed) { try BatchSignature(bytes: good.dropLast()) }
    #expect(throws: TrustError.tooLong) { try BatchSignature(bytes: [UInt8](repeating: 1, count: 5000)) }
    for count in 0..<good.count {
      #expect(throws: TrustError.self) { try BatchSignature(bytes: good.prefix(count)) }
    }
    var outside = good
    (outside[1], outside[2]) = (0, 2)
    #expect(throws: TrustError.malformed) { try BatchSignature(bytes: outside) }
    var huge = good
    (huge[3], huge[4]) = (0x10, 0x01)
    #expect(throws: TrustError.tooLong) { try BatchSignature(bytes: huge) }
  }

  @Test("comes from the tree of RFC 6962")
  func rfcTree() {
    // RFC 6962, 2.1, as it is written there.
    func hash(_ leaves: ArraySlice<Digest32>) -> Digest32 {
      guard leaves.count > 1, let first = leaves.first else { return MerkleTree.leafHash(leaves.first ?? .zero) }
      _ = first
      var k = 1
      while k * 2 < leaves.count { k *= 2 }
      return MerkleTree.nodeHash(hash(leaves.prefix(k)), hash(leaves.dropFirst(k)))
    }
    func path(_ leaf: Int, _ leaves: ArraySlice<Digest32>) -> [Digest32] {
      guard leaves.count > 1 else { return [] }
      var k = 1
      while k * 2 < leaves.count { k *= 2 }
      let (left, right) = (leaves.prefix(k), leaves.dropFirst(k))
      return leaf < k ? path(leaf, left) + [hash(right)] : path(leaf - k, right) + [hash(left)]
    }
    var random = SeededGenerator.forTest()
    for count in 1...40 {
      let leaves = self.digests(count, &random)
      let tree = MerkleTree(leaves)
      #expect(tree.root == hash(leaves[...]))
      for leaf in 0..<count {
        #expect(tree.auditPath(to: leaf) == path(leaf, leaves[...]))
        #expect(MerkleTree.auditPathCount(leaf: leaf, size: count) == tree.auditPath(to: leaf).count)
        let root = MerkleTree.root(leaf: leaves[leaf], at: leaf, size: count, path: tree.auditPath(to: leaf))
        #expect(root == tree.root)
      }
    }
    // A tree of one has its leaf's hash as root; the RFC's test value for an empty leaf shows the prefix.
    #expect(
      MerkleTree([Digest32.zero]).root == Digest32(sha256: [UInt8](repeating: 0, count: 33)))
  }
}

@Suite("A signature cache")
struct SignatureCacheTests {
  private func claim(_ number: Int) -> SignatureCache.Claim {
    SignatureCache.Claim(
      keyID: .zero, purpose: .receipt, treeSize: 1, root: Digest32(sha256: "\(number)".utf8), signature: [])
  }

  @Test("is bounded, and keeps what is in use")
  func bounded() {
    let cache = SignatureCache(countMax: 100)
    for number in 0..<1000 {
      cache.insert(self.claim(number))
      #expect(cache.contains(self.claim(0)))
      #expect(cache.count <= 100)
    }
    #expect(cache.contains(self.claim(999)))
    #expect(!cache.contains(self.claim(500)))
  }

  @Test("may be used from many threads")
  func threads() async {
    let cache = SignatureCache(countMax: 64)
    await withTaskGroup { group in
      for start in 0..<4 {
        group.addTask {
          for number in 0..<500 {
            cache.insert(self.claim(number * 4 + start))
            _ = cache.contains(self.claim(number))
          }
        }
      }
    }
    #expect(cache.count <= 64)
  }
}
