PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE collection (
	id INTEGER NOT NULL, 
	name VARCHAR(150), 
	token VARCHAR(50), 
	created_at DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO collection VALUES(1,'vsoch','0365acd0-0232-4f98-852c-345e6e2148b6','2026-11-30 22:57:42');
INSERT INTO collection VALUES(2,'library','0d075579-4b66-4edc-af31-f5db000d6aa9','2026-11-30 22:57:42');
CREATE TABLE container (
	id INTEGER NOT NULL, 
	created_at DATETIME, 
	metrics TEXT NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	tag VARCHAR(250) NOT NULL, 
	image VARCHAR(250), 
	url VARCHAR(500), 
	uri VARCHAR(500), 
	client VARCHAR(50) NOT NULL, 
	version VARCHAR(250), 
	collection_id INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT _container_uc UNIQUE (collection_id, name, tag, client, version), 
	FOREIGN KEY(collection_id) REFERENCES collection (id)
);
INSERT INTO container VALUES(1,'2026-11-30 22:57:42','{"collection": "vsoch", "original": "vsoch/hello-world:1.0", "registry": null, "image": "hello-world", "url": "vsoch/hello-world", "tag": "1.0", "version": null, "storage": "vsoch/hello-world:1.0.sif", "uri": "vsoch/hello-world:1.0", "type": "container", "MAINTAINER": "vanessa"}','hello-world','1.0','@ROOT@/store/vsoch/hello-world/1.0@230bb7e62ac70ec86f0ba127fc5dab4b1d102a03469881da0003ec8257ed81fb.sif','vsoch/hello-world','vsoch/hello-world:1.0@230bb7e62ac70ec86f0ba127fc5dab4b1d102a03469881da0003ec8257ed81fb','hub','230bb7e62ac70ec86f0ba127fc5dab4b1d102a03469881da0003ec8257ed81fb',1);
INSERT INTO container VALUES(2,'2026-11-30 22:57:42','{"collection": "vsoch", "original": "vsoch/moved:v2", "registry": null, "image": "moved", "url": "vsoch/moved", "tag": "v2", "version": null, "storage": "vsoch/moved:v2.sif", "uri": "vsoch/moved:v2", "type": "container"}','moved','v2','@ROOT@/elsewhere/v2@941ed3457a1e311f6f13433b9f4bd61165d4ec7fe457d217581dab69c6cdf2b0.sif','vsoch/moved','vsoch/moved:v2@941ed3457a1e311f6f13433b9f4bd61165d4ec7fe457d217581dab69c6cdf2b0','hub','941ed3457a1e311f6f13433b9f4bd61165d4ec7fe457d217581dab69c6cdf2b0',1);
INSERT INTO container VALUES(3,'2026-11-30 22:57:42','{"collection": "library", "original": "ubuntu", "registry": null, "image": "ubuntu", "url": "library/ubuntu", "tag": "latest", "version": null, "storage": "library/ubuntu:latest.sif", "uri": "library/ubuntu:latest", "type": "container"}','ubuntu','latest','@ROOT@/store/library/ubuntu/latest@412f6d31183955040f74ee0d6bb04463c6c187dc1b434455033db3b5fd270b34.sif','library/ubuntu','library/ubuntu:latest@412f6d31183955040f74ee0d6bb04463c6c187dc1b434455033db3b5fd270b34','hub','412f6d31183955040f74ee0d6bb04463c6c187dc1b434455033db3b5fd270b34',2);
INSERT INTO container VALUES(4,'2026-11-30 22:57:42','{"collection": "vsoch", "original": "vsoch/by-url:3@0123456789abcdef0123456789abcdef", "registry": null, "image": "by-url", "url": "vsoch/by-url", "tag": "3", "version": "0123456789abcdef0123456789abcdef", "storage": "vsoch/by-url:3@0123456789abcdef0123456789abcdef.sif", "uri": "vsoch/by-url:3@0123456789abcdef0123456789abcdef", "type": "container"}','by-url','3',NULL,'http://127.0.0.1:1/by-url.simg','vsoch/by-url:3@0123456789abcdef0123456789abcdef','hub','0123456789abcdef0123456789abcdef',1);
COMMIT;
