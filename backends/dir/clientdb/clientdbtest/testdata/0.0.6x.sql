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
INSERT INTO collection VALUES(1,'vsoch','db1a73b9-e92f-4833-90a8-40af00388e5e','2026-11-30 22:57:58');
INSERT INTO collection VALUES(2,'library','a6bc2c20-c595-4fcf-a536-ab6a3b748c00','2026-11-30 22:57:59');
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
INSERT INTO container VALUES(1,'2026-11-30 22:57:59','{"collection": "vsoch", "image": "hello-world", "url": "vsoch/hello-world", "tag": "1.0", "version": null, "storage": "vsoch/hello-world:1.0.simg", "uri": "vsoch/hello-world:1.0"}','hello-world','1.0','@ROOT@/store/vsoch-hello-world:1.0.simg','vsoch/hello-world','vsoch/hello-world:1.0','hub','504a9d5ddfcc4f123cd051ef2165f503',1);
INSERT INTO container VALUES(2,'2026-11-30 22:57:59','{"collection": "vsoch", "image": "moved", "url": "vsoch/moved", "tag": "v2", "version": null, "storage": "vsoch/moved:v2.simg", "uri": "vsoch/moved:v2"}','moved','v2','@ROOT@/elsewhere/vsoch-moved:v2.simg','vsoch/moved','vsoch/moved:v2','hub','04917df7faa0d9b6b8bba409f53f4ebf',1);
INSERT INTO container VALUES(3,'2026-11-30 22:57:59','{"collection": "library", "image": "ubuntu", "url": "library/ubuntu", "tag": "latest", "version": null, "storage": "library/ubuntu:latest.simg", "uri": "library/ubuntu:latest"}','ubuntu','latest','@ROOT@/store/library-ubuntu:latest.simg','library/ubuntu','library/ubuntu:latest','hub','b423ca136c387bac9d496f715a6ecb39',2);
INSERT INTO container VALUES(4,'2026-11-30 22:58:00','{"collection": "vsoch", "image": "by-url", "url": "vsoch/by-url", "tag": "3", "version": "0123456789abcdef0123456789abcdef", "storage": "vsoch/by-url:3@0123456789abcdef0123456789abcdef.simg", "uri": "vsoch/by-url:3@0123456789abcdef0123456789abcdef"}','by-url','3',NULL,'http://127.0.0.1:1/by-url.simg','vsoch/by-url:3@0123456789abcdef0123456789abcdef','hub','0123456789abcdef0123456789abcdef',1);
COMMIT;
