// SPDX-License-Identifier: Apache-2.0

package import SectorStore
package import Trust

/// Why a node was not made, did not start, or stopped. Each says in one line what is wrong and what to do.
package enum NodeError: Error, Sendable {
  /// `init` and `request` want a directory that does not exist, or is empty.
  case directoryInUse(String)
  /// Something is where `init` and `request` make a node's directory, and it is no directory.
  case inTheWay(String)
  /// Another process is making a node here.
  case beingMade(String)
  /// The directory is not one that `init` or `join` has made.
  case notANode(String)
  case missing(String)
  /// Others than the owner may use it.
  case tooOpen(String, mode: UInt16)
  case foreignOwner(String)
  case malformed(String, why: String)
  /// The file was written by a newer release.
  case newerVersion(String, found: Int, supported: Int)
  /// A key file was not read or written.
  case keyFile(String, KeyFileError)
  /// A certificate or credential does not verify.
  case untrusted(String, TrustError)
  /// The credential is not for this node: names why.
  case wrongCredential(String)
  /// A setting that is malformed. Names it, and what it should be.
  case setting(String, expected: String)
  /// The store could not be opened.
  case store(String, StoreError)
  /// The store failed while it ran, and the node stopped.
  case storeFailed(String)
  /// The store met damage while it ran, and the node stopped. Says where.
  case storeDamaged(String)
  /// What the store holds does not fit the node.
  case inconsistent(String)
  /// The credential names no service that a node hosts.
  case servesNothing(TreePath)
  /// A gateway was not given the key of the directory that it is to serve.
  case noKey(TreePath)
  /// A backup was not made a store of: says why.
  case restoring(String)
  case listening(String, why: String)
  case system(call: String, path: String, code: Int32, text: String)
}

extension NodeError: CustomStringConvertible {
  package var description: String {
    switch self {
    case .directoryInUse(let path): "\(path) has contents already; choose another directory, or remove it"
    case .inTheWay(let path): "\(path) is in the way and not a directory; remove it"
    case .beingMade(let path): "another process is making a node at \(path)"
    case .notANode(let path): "\(path) is not a node's directory; make one with 'btnode init' or 'btnode request'"
    case .missing(let path): "\(path) is missing"
    case .tooOpen(let path, let mode):
      "\(path) is open to others (mode 0\(String(mode, radix: 8))); close it with 'chmod go= \(path)'"
    case .foreignOwner(let path): "\(path) belongs to another user of this machine; run as that user"
    case .malformed(let path, let why): "\(path) is damaged: \(why)"
    case .newerVersion(let path, let found, let supported):
      "\(path) has version \(found); this release knows versions up to \(supported): use a newer release"
    case .keyFile(let path, let error): Self.describe(path, error)
    case .untrusted(let path, .expired):
      "\(path) has expired; renew it: 'btnode request', 'btrpc process add --replace', 'btnode join'"
    case .untrusted(let path, let error): "\(path) can not be trusted: \(error.rawValue)"
    case .wrongCredential(let why): "the credential is not for this node: \(why)"
    case .setting(let name, let expected): "the setting \(name) should be \(expected)"
    case .store(let path, .locked): "\(path) is in use: a node runs on it already"
    case .store(let path, .newerFormat(let found, let supported)):
      "\(path) has format \(found); this release knows formats up to \(supported): use a newer release"
    case .store(let path, .notAStore): "\(path) holds no store"
    case .store(let path, let error): "\(path) can not be opened: \(error)"
    case .storeFailed(let why):
      "the store failed, and the node stopped so that nothing wrong is served: \(why); check the disk, then start again"
    case .storeDamaged(let place):
      "the store is damaged, and the node stopped so that nothing wrong is served: \(place)"
    case .inconsistent(let why): "the node's files do not fit one another: \(why)"
    case .servesNothing(let path):
      "the credential of \(path) names neither the service 'sector' nor 'filesystem', so there is nothing to serve"
    case .noKey(let directory):
      "this process has not the key of \(directory), which it is to serve: certify it anew with 'process add --replace'"
    case .restoring(let why): why
    case .listening(let address, let why): "can not listen on \(address): \(why)"
    case .system(let call, let path, _, let text): "\(path): \(call): \(text)"
    }
  }

  private static func describe(_ path: String, _ error: KeyFileError) -> String {
    switch error {
    case .notFound: "\(path) is missing"
    case .alreadyExists: "\(path) exists already"
    case .tooOpen(let mode): Self.tooOpen(path, mode: mode).description
    case .foreignOwner: Self.foreignOwner(path).description
    case .notRegularFile: "\(path) is not a file"
    case .malformed: "\(path) holds no private keys"
    case .system(let call, let code): "\(path): \(call): error \(code)"
    }
  }
}
