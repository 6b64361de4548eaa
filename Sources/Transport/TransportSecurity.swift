// SPDX-License-Identifier: Apache-2.0

package import FoundationEssentials
internal import NIOCore
internal import NIOSSL
internal import Synchronization
package import Trust

/// What TLS needs to know: whom we believe, and who we are.
///
/// TLS 1.3 and HTTP/2 only. A server always shows a certificate; a client shows one unless this process has none, and
/// is anonymous then. Each side verifies the other's chain against the root of the domain, by `ChainVerifier` and
/// nothing else: no host names, no system store.
///
/// The identity can be replaced while connections are open: new handshakes use the new one.
package final class TransportSecurity: Sendable {
  /// A certificate chain, leaf first, and the key of its leaf.
  package struct Identity: Sendable {
    package let chain: CertificateChain
    package let key: SigningKey

    package init(chain: CertificateChain, key: SigningKey) {
      self.chain = chain
      self.key = key
    }
  }

  /// Asked for each peer whose chain has just been verified; false refuses the handshake. It runs on an event loop, so
  /// it has to answer from memory. This is the place for revoked keys.
  package typealias Admission = @Sendable (Credential) -> Bool

  private struct Contexts {
    var server: NIOSSLContext?
    var client: NIOSSLContext
  }

  /// The present time, by which certificates hold or have expired.
  let now: @Sendable () -> Date
  private let verifier: ChainVerifier
  private let admits: Admission
  private let contexts: Mutex<Contexts>
  private let resumable: Mutex<RecentChains>

  /// The protocol that our connections carry, for ALPN.
  static let protocolName = "h2"

  /// Throws `TransportError.unusableIdentity`, when TLS can not use the key or the certificates.
  package init(
    root: RootCertificate, identity: Identity?, admits: @escaping Admission = { _ in true },
    now: @escaping @Sendable () -> Date = { .now }
  ) throws(TransportError) {
    self.now = now
    self.verifier = ChainVerifier(root: root)
    self.admits = admits
    self.contexts = Mutex(try Self.makeContexts(identity))
    self.resumable = Mutex(RecentChains())
  }

  /// From now on, show this identity in handshakes. Open connections stay as they are.
  package func replaceIdentity(_ identity: Identity) throws(TransportError) {
    let contexts = try Self.makeContexts(identity)
    self.contexts.withLock { $0 = contexts }
  }

  func serverContext() throws(TransportError) -> NIOSSLContext {
    guard let context = self.contexts.withLock({ $0.server }) else { throw .noIdentity }
    return context
  }

  var clientContext: NIOSSLContext { self.contexts.withLock { $0.client } }

  // MARK: Verification

  /// Verifies a chain that a peer presented, the peer's own certificate first.
  func verify(_ certificates: [NIOSSLCertificate]) throws(TransportError) -> Credential {
    do {
      let chain = try CertificateChain(certificates.map { try $0.toDERBytes() })
      let credential = try self.verify(chain)
      if let leaf = certificates.first { self.resumable.withLock { $0.insert(chain, for: leaf) } }
      return credential
    } catch let error as TransportError {
      throw error
    } catch let error as TrustError {
      throw .untrustedPeer(error)
    } catch {
      throw .untrustedPeer(.malformed)
    }
  }

  /// Verifies the peer of a resumed session, whose certificates TLS does not send again, by the chain that it showed
  /// when the session began. The verification itself is done anew: the chain may have expired meanwhile.
  func verifyResumed(_ leaf: NIOSSLCertificate) throws(TransportError) -> Credential {
    guard let chain = self.resumable.withLock({ $0[leaf] }) else {
      throw .handshakeFailed("the resumed session is too old")
    }
    return try self.verify(chain)
  }

  private func verify(_ chain: CertificateChain) throws(TransportError) -> Credential {
    let credential: Credential
    do {
      credential = try self.verifier.verify(chain, at: self.now())
    } catch {
      throw .untrustedPeer(error)
    }
    guard self.admits(credential) else { throw .peerNotAdmitted(credential.path) }
    return credential
  }

  // MARK: Contexts

  private static func makeContexts(_ identity: Identity?) throws(TransportError) -> Contexts {
    do {
      let chain = try identity?.chain.certificates.map {
        NIOSSLCertificateSource.certificate(try NIOSSLCertificate(bytes: $0, format: .der))
      }
      let key = try identity.map {
        NIOSSLPrivateKeySource.privateKey(try NIOSSLPrivateKey(bytes: $0.key.derRepresentation, format: .der))
      }
      var client = TLSConfiguration.makeClientConfiguration()
      self.harden(&client)
      client.certificateVerification = .noHostnameVerification
      client.certificateChain = chain ?? []
      client.privateKey = key
      guard let chain, let key else { return Contexts(server: nil, client: try NIOSSLContext(configuration: client)) }

      var server = TLSConfiguration.makeServerConfiguration(certificateChain: chain, privateKey: key)
      self.harden(&server)
      // A client may come without a certificate, and is anonymous then. One that it shows has to verify.
      server.certificateVerification = .optionalVerification
      return Contexts(
        server: try NIOSSLContext(configuration: server), client: try NIOSSLContext(configuration: client))
    } catch {
      throw .unusableIdentity("\(error)")
    }
  }

  private static func harden(_ configuration: inout TLSConfiguration) {
    configuration.minimumTLSVersion = .tlsv13
    configuration.maximumTLSVersion = .tlsv13
    configuration.applicationProtocols = [Self.protocolName]
    // Our own callback verifies. With an empty store nothing could slip past it, should it ever not be called.
    configuration.trustRoots = .certificates([])
    // A peer that does not answer our goodbye is cut off.
    configuration.shutdownTimeout = .seconds(1)
  }
}

/// The chains of peers that may resume a TLS session. Bounded; the oldest goes first.
private struct RecentChains {
  private static let countMax = 4096

  private var chains: [NIOSSLCertificate: CertificateChain] = [:]
  private var order: [NIOSSLCertificate] = []
  private var next = 0

  subscript(leaf: NIOSSLCertificate) -> CertificateChain? { self.chains[leaf] }

  mutating func insert(_ chain: CertificateChain, for leaf: NIOSSLCertificate) {
    guard self.chains.updateValue(chain, forKey: leaf) == nil else { return }
    if self.order.count < Self.countMax {
      self.order.append(leaf)
    } else {
      self.chains[self.order[self.next]] = nil
      self.order[self.next] = leaf
      self.next = (self.next + 1) % Self.countMax
    }
  }
}

/// The verification of one connection's peer. Belongs to the connection's event loop.
final class PeerVerification {
  private let security: TransportSecurity
  private let accepts: (Credential) throws(TransportError) -> Void
  private var verdict: Result<Credential, TransportError>?

  /// - Parameter accepts: What else the peer has to fulfil; throws if it does not.
  init(_ security: TransportSecurity, accepts: @escaping (Credential) throws(TransportError) -> Void = { _ in }) {
    self.security = security
    self.accepts = accepts
  }

  /// Why the peer was refused, if it was.
  var refusal: TransportError? {
    if case .failure(let error)? = self.verdict { error } else { nil }
  }

  /// What NIOSSL calls with the certificates of the peer, when it has shown any.
  func callback(_ certificates: [NIOSSLCertificate], _ promise: EventLoopPromise<NIOSSLVerificationResult>) {
    self.decide { () throws(TransportError) in try self.security.verify(certificates) }
    promise.succeed(self.refusal == nil ? .certificateVerified : .failed)
  }

  /// After the handshake: who the peer is; nothing, when it is anonymous.
  ///
  /// - Parameter leaf: The peer's certificate as TLS knows it. If there is one that the callback has not seen, then
  ///   the session was resumed: without this check the peer would be taken for anonymous or, worse, for verified.
  func conclude(leaf: NIOSSLCertificate?) throws(TransportError) -> Credential? {
    guard let leaf else {
      guard self.verdict == nil else { throw .handshakeFailed("the peer's certificate is gone") }
      return nil
    }
    if self.verdict == nil {
      self.decide { () throws(TransportError) in try self.security.verifyResumed(leaf) }
    }
    return try self.verdict?.get()
  }

  private func decide(_ verify: () throws(TransportError) -> Credential) {
    do throws(TransportError) {
      let credential = try verify()
      try self.accepts(credential)
      self.verdict = .success(credential)
    } catch {
      self.verdict = .failure(error)
    }
  }
}
